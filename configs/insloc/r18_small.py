# InsLoc at CPU size: ResNet-18 of width 16, canvases of 64 px, batch 64, AdamW. No published counterpart.
# All numbers are a choice.
# Command: python tools/train.py configs/insloc/r18_small.py --data-root DIR
_base_ = "../mocov2/r18_small.py"

model = dict(
    type="InsLoc",
    views=dict(main=dict(area=(0.2, 1.0), aspect=(0.5, 2.0), paste=(32, 63))),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(
        _delete_=True,
        type="RegionProjector",
        in_channels=(16, 32, 64, 128),
        channels=32,
        hid_channels=128,
        out_channels=64,
        num_convs=2,
        norm_cfg=dict(type="GroupedBN", group_size=16),
    ),
    head=dict(terms=dict(p0=dict(), p1=dict(), p2=dict(), p3=dict())),
)
