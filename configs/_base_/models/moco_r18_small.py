# MoCo v2 for CPUs: ResNet-18 of width 16 at 64 px, groups of 16 images.
model = dict(
    type="MoCoV2",
    views=dict(main=dict(num_views=2, region=64, patch=64, area=(0.2, 1.0))),
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(type="GroupedBN", group_size=16),
        zero_init_residual=False,
    ),
    neck=dict(type="MLPProjector", in_channels=128, hid_channels=256, out_channels=64),
    head=dict(type="ContrastHead", queue_length=1024, temperature=0.1),
    data_preprocessor=dict(type="PyramidAugment", jitter=(0.4, 0.4, 0.4, 0.1)),
)
