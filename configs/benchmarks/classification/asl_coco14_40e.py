# Fine-tuning of the whole network on COCO train2014 with the asymmetric loss, at 448 px; paper, table of ASL on COCO.
# Command: python tools/train.py configs/benchmarks/classification/asl_coco14_40e.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# Published (pre-trained on COCO): 69.3 mAP. Not reproduced here. `evaluate --protocol asl224`: at 224 px.
_base_ = "./semi_coco14_100pct_20e.py"

_augmented = [
    dict(type="LoadRGBImage", skip_broken=False),
    dict(type="SeedTransforms"),
    dict(type="Resize", scale=(448, 448), backend="pillow"),
    # A square of half the image's side, then two operations of RandAugment.
    dict(type="Cutout", shape=224, pad_val=0, prob=1.0),
    dict(
        type="RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
    ),
    dict(type="PackInputs"),
]
_square = [
    dict(type="LoadRGBImage", skip_broken=False),
    dict(type="Resize", scale=(448, 448), backend="pillow"),
    dict(type="PackInputs"),
]
model = dict(
    head=dict(
        loss=dict(type="AsymmetricLoss", gamma_pos=0.0, gamma_neg=4.0, clip=0.05),
        mean_over_images=False,
    )
)
train_dataloader = dict(dataset=dict(pipeline=_augmented))
val_dataloader = dict(dataset=dict(pipeline=_square))
test_dataloader = dict(dataset=dict(pipeline=_square))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="Adam", lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(
    _delete_=True,
    type="OneCycleLR",
    eta_max=2e-4,
    pct_start=0.2,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(max_epochs=40, val_interval=40)
# The average over about 3 300 iterations is what is measured; decay .9997.
default_hooks = dict(ema=dict(type="EMAHook", momentum=3e-4, update_buffers=True))
