# Linear classifier on a frozen ResNet-50, VOC 2007 trainval -> test; paper, linear multi-label classification.
# Command: python tools/train.py configs/benchmarks/classification/linear_voc07_50e.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth optim_wrapper.optimizer.lr=0.1
# One learning rate of the grid; `python -m sspyr_mm evaluate` trains all of them at once, to the same figures.
# Published (two scales, table S-C): 79.9 mAP. Not reproduced here.
_base_ = [
    "../../_base_/models/r50_multi_label.py",
    "../../_base_/datasets/multi_label_images.py",
    "../../_base_/multi_label_runtime.py",
]

model = dict(backbone=dict(frozen_stages=4, norm_eval=True), head=dict(num_classes=20))
train_dataloader = dict(dataset=dict(split="trainval"))
val_dataloader = dict(dataset=dict(split="test"))
test_dataloader = dict(dataset=dict(split="test"))
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type="MultiStepLR", milestones=[12, 25, 37], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=10)
