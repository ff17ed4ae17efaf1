# ResNet-50, 2-layer projectors onto 128 dimensions, the paper's variant of the head.
_base_ = "../pyramids/three_scales.py"

model = dict(
    type="SSPRL",
    backbone=dict(
        type="ResNet",
        depth=50,
        norm_cfg=dict(type="SyncBN"),
        zero_init_residual=False,
    ),
    neck=dict(
        type="PyramidProjector",
        in_channels=2048,
        hid_channels=2048,
        out_channels=128,
        norm_cfg=dict(type="SyncBN"),
    ),
    head=dict(
        type="SSPRLHead",
        variant="paper",
        temperature=0.1,
        assigner=dict(type="SinkhornAssigner", epsilon=0.05, num_iterations=3),
        swapped_loss=dict(type="SwappedPredictionLoss"),
        cross_scale_loss=dict(type="CrossScaleLoss", loss_weight=1.0),
    ),
    data_preprocessor=dict(type="PyramidAugment"),
)
