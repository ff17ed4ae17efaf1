# Former name of linear_coco14_100e_official.py, which will be removed in version 0.4.
_base_ = "./linear_coco14_100e_official.py"
_deprecation_ = dict(expected="linear_coco14_100e_official.py")
