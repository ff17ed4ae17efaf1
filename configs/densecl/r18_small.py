# DenseCL at CPU size: ResNet-18 of width 16, 96 px (maps of 3 x 3), batch 64, AdamW. No published counterpart.
# All numbers are a choice. Circular padding: with zeros, the network can minimise the dense term from the position in
# the map alone. See docs/health.md.
# Command: python tools/train.py configs/densecl/r18_small.py --data-root DIR
_base_ = "../mocov2/r18_small.py"

model = dict(
    type="DenseMoCo",
    views=dict(main=dict(region=96, patch=96)),
    backbone=dict(conv_cfg=dict(type="Conv2d", padding_mode="circular")),
    neck=dict(type="DenseProjector"),
    head=dict(terms=dict(main=dict(weight=0.5), dense=dict(key="matched", queue="dense", weight=0.5))),
)
