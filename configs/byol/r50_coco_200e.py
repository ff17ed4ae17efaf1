# BYOL, ResNet-50 on COCO train2014 without labels; row "BYOL" of the paper's tables S-A and S-B (COCO).
# Command: tools/dist_train.sh configs/byol/r50_coco_200e.py 4      (4 x 32 images)
# Networks and augmentation (except the bicubic filter of crops): the authors'. lr, decay, warm-up of 10 epochs and
# momentum: a choice, those of DenseCL's repository for 200 epochs on COCO, with the lr (0.2 for 256 images) scaled
# linearly with the batch. The authors use 4096 images per step (optim_wrapper.accumulative_counts=32 averages as many
# gradients). Not reproduced here.
_base_ = [
    "../_base_/models/byol_r50.py",
    "../_base_/datasets/unlabelled.py",
    "../_base_/schedules/lars_byol_200e.py",
    "../_base_/momentum_runtime.py",
]

train_dataloader = dict(batch_size=32)
default_hooks = dict(momentum=dict(momentum=0.996, end=1.0))
