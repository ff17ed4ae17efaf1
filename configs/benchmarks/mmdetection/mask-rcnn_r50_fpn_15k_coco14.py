# The same up to step 15 000, before the learning rate drops: what the paper's table of Mask R-CNN reports.
# Command: tools/dist_train.sh configs/benchmarks/mmdetection/mask-rcnn_r50_fpn_15k_coco14.py 8 \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# Cost: 15 000 steps of 16 images, 8 GPUs. Published: the paper's table was not at hand.
_base_ = "./mask-rcnn_r50_fpn_90k_coco14.py"

train_cfg = dict(max_iters=15000)
