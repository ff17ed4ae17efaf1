# BYOL on ResNet-50: MLPs of width 4096 onto 256 dimensions, batch norm over all processes, two different augmentations.
model = dict(
    type="Bootstrap",
    views=dict(
        main=dict(
            num_views=2,
            region=224,
            patch=224,
            area=(0.08, 1.0),
            augment=[dict(blur_prob=1.0), dict(blur_prob=0.1, solarize_prob=0.2)],
        )
    ),
    backbone=dict(type="ResNet", depth=50, norm_cfg=dict(type="SyncBN"), zero_init_residual=False),
    neck=dict(
        type="MLPProjector",
        in_channels=2048,
        hid_channels=4096,
        out_channels=256,
        norm_cfg=dict(type="SyncBN"),
        last_bias=False,
    ),
    head=dict(type="BootstrapHead", hid_channels=4096, norm_cfg=dict(type="SyncBN")),
    data_preprocessor=dict(type="PyramidAugment", jitter=(0.4, 0.4, 0.2, 0.1)),
)
