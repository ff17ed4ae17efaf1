# SwAV, ResNet-50 on ImageNet-1k without labels; row "SwAV" of the paper's table S-B (ImageNet).
# Command: tools/dist_train.sh configs/swav/r50_in1k_100e.py 4      (4 x 64 images)
# All numbers are those of SwAV's recipe for 200 epochs and a batch of 256, except 100 epochs and a freeze of 5004
# iterations, one epoch here, instead of 5005. Not reproduced here.
_base_ = "./r50_coco_200e.py"

model = dict(pyramid=dict(s0=dict(queue_length=3840)))  # 15 batches
train_dataloader = dict(dataset=dict(data_root="data/imagenet/train"))
default_hooks = dict(freeze_prototypes=dict(num_iters=5004))
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
