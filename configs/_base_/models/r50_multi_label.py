# mmpretrain's ResNet-50 with a linear multi-label head; labels marked difficult are ignored.
# checkpoint: a backbone written by `python -m sspyr_mm export CKPT backbone.pth`.
_base_ = "mmpretrain::_base_/models/resnet50.py"

model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="backbone.pth")),
    head=dict(_delete_=True, type="MaskedMultiLabelHead", in_channels=2048),
    data_preprocessor=dict(
        type="ClsDataPreprocessor",
        mean=[123.675, 116.28, 103.53],  # RGB, which LoadRGBImage gives
        std=[58.395, 57.12, 57.375],
    ),
)
