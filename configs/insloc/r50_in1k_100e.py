# InsLoc, ResNet-50 on ImageNet-1k without labels; row "InsLoc" of the paper's table S-B (ImageNet).
# Command: tools/dist_train.sh configs/insloc/r50_in1k_100e.py 8      (8 x 32 images)
# All numbers are the authors' (lr 0.03 for 256 images), except 100 epochs instead of 200 and a cosine per iteration.
# Not reproduced here.
_base_ = "./r50_coco_200e.py"

train_dataloader = dict(dataset=dict(data_root="data/imagenet/train"))
optim_wrapper = dict(optimizer=dict(lr=0.03))
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
