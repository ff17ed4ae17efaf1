# SS-PRL at CPU size: ResNet-18 of width 16, two scales at 64 px, batch 64, AdamW. No published counterpart.
# All numbers are a choice.
# Command: python tools/train.py configs/ssprl/r18_small_50e.py --data-root DIR
# Cost: about 15 s an epoch of 3 000 small images on one core.
_base_ = [
    "../_base_/models/ssprl_r18_small.py",
    "../_base_/datasets/unlabelled.py",
    "../_base_/schedules/adamw.py",
    "../_base_/ssprl_runtime.py",
]

model = dict(channels_last=True)
train_dataloader = dict(batch_size=64, num_workers=1)
