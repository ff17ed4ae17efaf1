# Faster R-CNN, ResNet-50 C4, on VOC trainval07+12 -> test07: 24 000 steps as the MoCo authors' Detectron2 recipe.
# Command: tools/dist_train.sh configs/benchmarks/mmdetection/faster-rcnn_r50-c4_24k_voc0712.py 8 \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth \
#                            model.roi_head.shared_head.init_cfg.checkpoint=backbone.pth
# Cost: 24 000 steps of 16 images, 8 GPUs. Not in the paper; a common benchmark of the field. AP (`mAP`), AP50 and
# AP75 are 11-point figures as theirs. Their recipe has one more batch norm, after the fifth stage, which mmdet's shared
# head does not have, and learns difficult objects, too, which mmdet ignores.
_base_ = [
    "../../_base_/compat.py",
    "mmdet::_base_/models/faster-rcnn_r50-caffe-c4.py",
    "mmdet::_base_/datasets/voc0712.py",
    "../../_base_/mmdet_runtime.py",
    "../../_base_/schedules/detectron2_1x.py",
]

_norm = dict(type="SyncBN", requires_grad=True)
_start = dict(type="Pretrained", checkpoint="backbone.pth")
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(frozen_stages=-1, norm_cfg=_norm, norm_eval=False, style="pytorch", init_cfg=_start),
    roi_head=dict(
        shared_head=dict(norm_cfg=_norm, norm_eval=False, style="pytorch", init_cfg=_start),
        bbox_head=dict(num_classes=20),
    ),
)

_augmented = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
_test = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
_voc = [
    dict(
        type="VOCDataset",
        data_root="data/VOCdevkit/",
        ann_file=f"VOC{year}/ImageSets/Main/trainval.txt",
        data_prefix=dict(sub_data_root=f"VOC{year}/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),  # small objects are learned, too
        pipeline=_augmented,
    )
    for year in (2007, 2012)
]
train_dataloader = dict(sampler=dict(type="InfiniteSampler"), dataset=dict(times=1, dataset=dict(datasets=_voc)))
val_dataloader = dict(dataset=dict(pipeline=_test))
test_dataloader = dict(dataset=dict(pipeline=_test))
_thresholds = [round(0.5 + 0.05 * step, 2) for step in range(10)]
val_evaluator = dict(iou_thrs=_thresholds)
test_evaluator = dict(iou_thrs=_thresholds)
train_cfg = dict(max_iters=24000, val_interval=24000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=24000, milestones=[18000, 22000], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=6000))
