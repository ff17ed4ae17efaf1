# Fine-tuning of the whole network on all of COCO train2014; paper, semi-supervised learning (100 % of the labels).
# Command: python tools/train.py configs/benchmarks/classification/semi_coco14_100pct_20e.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# The head learns at lr, the backbone at lr * lr_mult. `python -m sspyr_mm evaluate` chooses both from a grid.
_base_ = [
    "../../_base_/models/r50_multi_label.py",
    "../../_base_/datasets/multi_label_images.py",
    "../../_base_/multi_label_runtime.py",
]

_annotations = "data/coco/annotations/instances_"
_augmented = [
    dict(type="LoadRGBImage", skip_broken=False),
    dict(type="SeedTransforms"),
    dict(type="RandomResizedCrop", scale=224, backend="pillow"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
model = dict(head=dict(num_classes=80))
train_dataloader = dict(batch_size=128, dataset=dict(data_root=_annotations + "train2014.json", pipeline=_augmented))
val_dataloader = dict(dataset=dict(data_root=_annotations + "val2014.json"))
test_dataloader = dict(dataset=dict(data_root=_annotations + "val2014.json"))
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
param_scheduler = dict(type="MultiStepLR", milestones=[12, 16], gamma=0.2)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=20)
