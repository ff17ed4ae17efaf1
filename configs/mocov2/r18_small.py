# MoCo v2 at CPU size: ResNet-18 of width 16, 64 px, batch 64, AdamW. No published counterpart.
# Command: python tools/train.py configs/mocov2/r18_small.py --data-root DIR
# All numbers are a choice. Queue, temperature and momentum follow MoCo's notebook for small images, with a queue
# for about 4 000 images.
_base_ = [
    "../_base_/models/moco_r18_small.py",
    "../_base_/datasets/unlabelled.py",
    "../_base_/schedules/adamw.py",
    "../_base_/momentum_runtime.py",
]

model = dict(channels_last=True)
train_dataloader = dict(batch_size=64, num_workers=1)
default_hooks = dict(momentum=dict(momentum=0.99))
