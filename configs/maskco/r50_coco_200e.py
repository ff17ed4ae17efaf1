# MaskCo, ResNet-50 on COCO train2014 without labels; row "MaskCo" of the paper's tables S-A and S-B (COCO).
# Reconstruction from the abstract and figure 3; the authors published no code.
# Command: tools/dist_train.sh configs/maskco/r50_coco_200e.py 4      (4 x 32 images; 1 x 128 is equivalent)
# Every number is a choice: MoCo v2's where it has one. Not reproduced here.
_base_ = "../mocov2/r50_coco_200e.py"

model = dict(
    type="MaskCo",
    channels=2048,
    norm_cfg=dict(type="GroupedBN", group_size=32),
    views=dict(main=dict(overlap=(64, 128))),
)
