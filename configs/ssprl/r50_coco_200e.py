# SS-PRL, ResNet-50 on COCO train2014 without labels; paper, section B and tables S-A, S-B (COCO).
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e.py 8      (8 x 16 images)
# Published: VOC FCN 62.6 mIoU, COCO ASL 69.3 mAP. Not reproduced here.
# The numbers are the paper's. Both views of a cell show the same part of the image, as in the authors' code. 8 GPUs are
# a choice: the authors' script uses 2.
_base_ = [
    "../_base_/models/ssprl_r50.py",
    "../_base_/datasets/unlabelled.py",
    "../_base_/schedules/lars_200e.py",
    "../_base_/ssprl_runtime.py",
]
