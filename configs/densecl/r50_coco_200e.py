# DenseCL, ResNet-50 on COCO train2014 without labels; row "DenseCL" of the paper's tables S-A and S-B (COCO).
# Command: tools/dist_train.sh configs/densecl/r50_coco_200e.py 4      (4 x 32 images; 1 x 128 is equivalent)
# Queues, temperature, momentum, weights of the terms, augmentation and weight decay: the authors'. lr: theirs for COCO
# and 256 images (0.3), scaled linearly with the batch. Not reproduced here.
_base_ = "../mocov2/r50_coco_200e.py"

model = dict(
    type="DenseMoCo",
    neck=dict(type="DenseProjector"),
    head=dict(terms=dict(main=dict(weight=0.5), dense=dict(key="matched", queue="dense", weight=0.5))),
)
