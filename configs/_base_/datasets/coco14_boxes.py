# COCO 2014 as Detectron2 augments it: the shorter side from 640 to 800, flips.
_base_ = "mmdet::_base_/datasets/coco_detection.py"

_augmented = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in (640, 672, 704, 736, 768, 800)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
_val = dict(ann_file="annotations/instances_val2014.json", data_prefix=dict(img="val2014/"))
train_dataloader = dict(
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(
        ann_file="annotations/instances_train2014.json",
        data_prefix=dict(img="train2014/"),
        pipeline=_augmented,
    ),
)
val_dataloader = dict(dataset=_val)
test_dataloader = dict(dataset=_val)
val_evaluator = dict(ann_file="data/coco/annotations/instances_val2014.json")
test_evaluator = dict(ann_file="data/coco/annotations/instances_val2014.json")
