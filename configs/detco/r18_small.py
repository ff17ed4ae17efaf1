# DetCo at CPU size: ResNet-18 of width 16, images of 64 px, 3 x 3 patches of 24 px, batch 64. No published counterpart.
# All numbers are a choice.
# Command: python tools/train.py configs/detco/r18_small.py --data-root DIR
_base_ = "../mocov2/r18_small.py"

model = dict(
    type="DetCo",
    views=dict(jigsaw=dict(num_views=2, region=96, grid=3, patch=24, area=(0.6, 1.0), jigsaw=True)),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(type="LevelProjectors", in_channels=(16, 32, 64, 128)),
)
