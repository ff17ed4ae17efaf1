# Former name of r50_coco_200e_official.py, which will be removed in version 0.4.
_base_ = "./r50_coco_200e_official.py"
_deprecation_ = dict(expected="r50_coco_200e_official.py")
