# MaskCo, ResNet-50 on ImageNet-1k without labels; row "MaskCo" of the paper's table S-B (ImageNet).
# Reconstruction from the abstract and figure 3; the authors published no code.
# Command: tools/dist_train.sh configs/maskco/r50_in1k_100e.py 8      (8 x 32 images)
# Every number is a choice: MoCo v2's where it has one. Not reproduced here.
_base_ = "./r50_coco_200e.py"

train_dataloader = dict(dataset=dict(data_root="data/imagenet/train"))
optim_wrapper = dict(optimizer=dict(lr=0.03))
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
