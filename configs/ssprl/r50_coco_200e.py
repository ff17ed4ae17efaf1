# SS-PRL, ResNet-50 on COCO train2014 without labels; paper, section B and tables S-A, S-B (COCO).
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e.py 8      (8 x 16 images)
# Published with it: VOC FCN 62.6 mIoU, COCO ASL 69.3 mAP. Not reproduced by us yet.
_base_ = [
    "../_base_/models/ssprl_r50.py",
    "../_base_/datasets/unlabelled.py",
    "../_base_/schedules/lars_200e.py",
    "../_base_/ssprl_runtime.py",
]
