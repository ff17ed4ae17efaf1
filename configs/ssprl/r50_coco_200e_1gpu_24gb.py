# The paper's recipe on one GPU of 24 GB: 128 images per step in bfloat16, activations of one scale in memory at a time.
# Counted: 18 GiB alive at the worst moment, 39 without `recompute`; it costs one forward pass more.
# Command: python tools/train.py configs/ssprl/r50_coco_200e_1gpu_24gb.py --data-root DIR
_base_ = "./r50_coco_200e.py"

model = dict(recompute="scale", channels_last=True)
optim_wrapper = dict(type="AutocastOptimWrapper")
train_dataloader = dict(batch_size=128, num_workers=16)
