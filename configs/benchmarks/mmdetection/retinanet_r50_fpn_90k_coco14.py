# RetinaNet, ResNet-50 FPN, on COCO train2014 -> val2014: Detectron2's 1x schedule, nothing frozen, SyncBN.
# Command: tools/dist_train.sh configs/benchmarks/mmdetection/retinanet_r50_fpn_90k_coco14.py 8 \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# Cost: 90 000 steps of 16 images, 8 GPUs. Not in the paper.
_base_ = [
    "../../_base_/compat.py",
    "mmdet::_base_/models/retinanet_r50_fpn.py",
    "../../_base_/datasets/coco14_boxes.py",
    "../../_base_/mmdet_runtime.py",
    "../../_base_/schedules/detectron2_1x.py",
]

_norm = dict(type="SyncBN", requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=_norm,
        norm_eval=False,
        init_cfg=dict(type="Pretrained", checkpoint="backbone.pth"),
    ),
    neck=dict(norm_cfg=_norm),
    bbox_head=dict(loss_bbox=dict(type="SmoothL1Loss", beta=0.1)),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
