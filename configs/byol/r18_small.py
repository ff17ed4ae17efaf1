# BYOL at CPU size: ResNet-18 of width 16, 64 px, batch 64, AdamW. No published counterpart.
# All numbers are a choice.
# Command: python tools/train.py configs/byol/r18_small.py --data-root DIR
_base_ = [
    "../_base_/models/byol_r18_small.py",
    "../_base_/datasets/unlabelled.py",
    "../_base_/schedules/adamw.py",
    "../_base_/momentum_runtime.py",
]

model = dict(channels_last=True)
train_dataloader = dict(batch_size=64, num_workers=1)
default_hooks = dict(momentum=dict(momentum=0.99, end=1.0))
