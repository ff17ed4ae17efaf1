# BYOL for CPUs: ResNet-18 of width 16 at 64 px.
model = dict(
    type="Bootstrap",
    views=dict(
        main=dict(
            num_views=2,
            region=64,
            patch=64,
            area=(0.2, 1.0),
            augment=[dict(blur_prob=1.0), dict(blur_prob=0.1, solarize_prob=0.2)],
        )
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(type="SyncBN"),
        zero_init_residual=False,
    ),
    neck=dict(
        type="MLPProjector",
        in_channels=128,
        hid_channels=256,
        out_channels=64,
        norm_cfg=dict(type="SyncBN"),
        last_bias=False,
    ),
    head=dict(type="BootstrapHead", hid_channels=256, norm_cfg=dict(type="SyncBN")),
    data_preprocessor=dict(type="PyramidAugment", jitter=(0.4, 0.4, 0.2, 0.1)),
)
