# SwAV at CPU size: ResNet-18 of width 16, 2 views of 64 px and 4 of 40 px, batch 64, AdamW. No published counterpart.
# All numbers are a choice.
# Command: python tools/train.py configs/swav/r18_small.py --data-root DIR
_base_ = "../ssprl/r18_small_50e.py"

model = dict(
    pyramid=dict(s0=dict(multi_crop=dict(num_views=4, patch=40, area=(0.05, 0.14))), s1=None),
    head=dict(variant="official"),
)
