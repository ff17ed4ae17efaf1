# MaskCo at CPU size: ResNet-18 of width 16, 96 px (maps of 3 x 3), batch 64, AdamW. No published counterpart.
# Reconstruction from the abstract and figure 3; the authors published no code. All numbers are a choice.
# Command: python tools/train.py configs/maskco/r18_small.py --data-root DIR
_base_ = "../mocov2/r18_small.py"

model = dict(
    type="MaskCo",
    channels=128,
    norm_cfg=dict(type="GroupedBN", group_size=16),
    views=dict(main=dict(region=96, patch=96, overlap=(24, 48))),
)
