# BYOL, ResNet-50 on ImageNet-1k without labels; row "BYOL" of the paper's table S-B (ImageNet).
# Command: tools/dist_train.sh configs/byol/r50_in1k_100e.py 8      (8 x 32 images)
# lr (0.45 per 256 images), decay, warm-up and momentum: the authors' for 100 epochs, with 256 images instead of 4096
# and bilinear crops. Not reproduced here.
_base_ = "./r50_coco_200e.py"

train_dataloader = dict(dataset=dict(data_root="data/imagenet/train"))
optim_wrapper = dict(optimizer=dict(lr=0.45, weight_decay=1e-6))
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(momentum=dict(momentum=0.99))
