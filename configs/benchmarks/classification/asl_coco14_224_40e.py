# As asl_coco14_40e.py, at 224 px: a quarter of the pixels. No published counterpart.
# Command: python tools/train.py configs/benchmarks/classification/asl_coco14_224_40e.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
_base_ = "./asl_coco14_40e.py"

_augmented = [
    dict(type="LoadRGBImage", skip_broken=False),
    dict(type="SeedTransforms"),
    dict(type="Resize", scale=(224, 224), backend="pillow"),
    dict(type="Cutout", shape=112, pad_val=0, prob=1.0),
    {{_base_._rand_augment}},
    dict(type="PackInputs"),
]
_square = [
    dict(type="LoadRGBImage", skip_broken=False),
    dict(type="Resize", scale=(224, 224), backend="pillow"),
    dict(type="PackInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=_augmented))
val_dataloader = dict(dataset=dict(pipeline=_square))
test_dataloader = dict(dataset=dict(pipeline=_square))
