# MoCo v2 on ResNet-50: 2-layer projector without norm, batch norm over groups of 32 images as on the authors' GPUs.
model = dict(
    type="MoCoV2",
    views=dict(main=dict(num_views=2, region=224, patch=224, area=(0.2, 1.0))),
    backbone=dict(
        type="ResNet",
        depth=50,
        norm_cfg=dict(type="GroupedBN", group_size=32),
        zero_init_residual=False,
    ),
    neck=dict(type="MLPProjector", in_channels=2048, hid_channels=2048, out_channels=128),
    head=dict(type="ContrastHead", queue_length=65536, temperature=0.2),
    data_preprocessor=dict(type="PyramidAugment", jitter=(0.4, 0.4, 0.4, 0.1)),
)
