# The paper's recipe on one GPU of 24 GB: 128 images per step in bfloat16. The activations of each scale are computed
# again in the backward pass, so that only those of one scale are in memory.
# Peak memory of all tensors, counted and not measured: 18 GiB, or 39 without `recompute`, which adds a forward pass.
# Published results and numbers: r50_coco_200e.py. bfloat16 and `recompute` are a choice. Not reproduced here.
# Command: python tools/train.py configs/ssprl/r50_coco_200e_1gpu_24gb.py --data-root DIR
_base_ = "./r50_coco_200e.py"

model = dict(recompute="scale", channels_last=True)
optim_wrapper = dict(type="AutocastOptimWrapper")
train_dataloader = dict(batch_size=128, num_workers=16)
