# ResNet-18 of width 16 for CPUs: 0.7 M parameters. epsilon 0.01 is for its small batches, see docs/small_batches.md.
_base_ = "../pyramids/two_scales_64px.py"

model = dict(
    type="SSPRL",
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(type="SyncBN"),
        zero_init_residual=False,
    ),
    neck=dict(
        type="PyramidProjector",
        in_channels=128,
        hid_channels=256,
        out_channels=64,
        norm_cfg=dict(type="SyncBN"),
    ),
    head=dict(
        type="SSPRLHead",
        variant="paper",
        temperature=0.1,
        assigner=dict(type="SinkhornAssigner", epsilon=0.01, num_iterations=3),
        swapped_loss=dict(type="SwappedPredictionLoss"),
        cross_scale_loss=dict(type="CrossScaleLoss", loss_weight=1.0),
    ),
    data_preprocessor=dict(type="PyramidAugment"),
)
