# Linear classifier on a frozen ResNet-50, COCO train2014 -> val2014; as the authors' code does it.
# Command: python tools/train.py configs/benchmarks/classification/linear_coco14_100e_official.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
_base_ = "./linear_voc07_100e_official.py"

_annotations = "data/coco/annotations/instances_"
model = dict(head=dict(num_classes=80))
train_dataloader = dict(batch_size=128, dataset=dict(data_root=_annotations + "train2014.json", split=None))
val_dataloader = dict(dataset=dict(data_root=_annotations + "val2014.json", split=None))
test_dataloader = dict(dataset=dict(data_root=_annotations + "val2014.json", split=None))
optim_wrapper = dict(optimizer=dict(lr=0.1))
