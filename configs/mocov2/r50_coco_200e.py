# MoCo v2, ResNet-50 on COCO train2014 without labels; row "MoCo v2" of the paper's tables S-A and S-B (COCO).
# Command: tools/dist_train.sh configs/mocov2/r50_coco_200e.py 4      (4 x 32 images; 1 x 128 is equivalent)
# Queue, temperature, momentum, augmentation and weight decay: the authors'. lr: a choice, DenseCL's 0.3 for COCO and
# 256 images, scaled linearly with the batch; none was published for MoCo v2 on COCO. Not reproduced here.
_base_ = [
    "../_base_/models/moco_r50.py",
    "../_base_/datasets/unlabelled.py",
    "../_base_/schedules/sgd_200e.py",
    "../_base_/momentum_runtime.py",
]

train_dataloader = dict(batch_size=32)
