# FCN, ResNet-50, on ADE20K train -> val. Not in the paper; a common benchmark of the field.
# Command: tools/dist_train.sh configs/benchmarks/mmsegmentation/fcn_r50-d8_80k_ade20k-512x512.py 4 \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# Cost: 80 000 steps of 16 images, 4 GPUs.
_base_ = ["../../_base_/compat.py", "mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py"]

model = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",  # of the 7x7 stem; the base's ResNetV1c would leave its own at random
        init_cfg=dict(type="Pretrained", checkpoint="backbone.pth"),
    ),
)
runner_type = "TrainingRunner"
default_hooks = dict(
    complete_weights=dict(type="mmpretrain.CompleteWeightsHook"),
    predictions=dict(type="mmpretrain.PredictionImagesHook"),
    divergence=dict(type="mmpretrain.DivergenceHook"),
    accumulation=dict(type="mmpretrain.AccumulationHook"),
    interrupt=dict(type="mmpretrain.InterruptHook"),
    stall=dict(type="mmpretrain.StallHook"),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
randomness = dict(seed=0)
