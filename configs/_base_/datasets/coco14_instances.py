# COCO 2014 with masks: coco14_boxes.py, for models that also predict instance masks.
_base_ = "./coco14_boxes.py"

_load = dict(type="LoadAnnotations", with_bbox=True, with_mask=True)
_train = _base_.train_dataloader.dataset.pipeline
_test = _base_.test_pipeline
test_pipeline = [*_test[:2], _load, *_test[3:]]
_val = dict(dataset=dict(pipeline=test_pipeline))
_metrics = dict(metric=["bbox", "segm"])
train_dataloader = dict(dataset=dict(pipeline=[_train[0], _load, *_train[2:]]))
val_dataloader = _val
test_dataloader = _val
val_evaluator = _metrics
test_evaluator = _metrics
