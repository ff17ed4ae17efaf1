# FCN, ResNet-50, on PASCAL VOC train_aug2012 (10 582 images) -> val2012; paper, table S-A.
# Command: tools/dist_train.sh configs/benchmarks/mmsegmentation/fcn_r50-d8_20k_voc12aug-512x512.py 4 \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# Cost: 20 000 steps of 16 images, 4 GPUs. Published (pre-trained on COCO): 62.6 mIoU. Not reproduced here.
_base_ = ["../../_base_/compat.py", "mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"]

model = dict(
    pretrained=None,
    backbone=dict(
        type="ResNet",  # of the 7x7 stem; the base's ResNetV1c would leave its own at random
        init_cfg=dict(type="Pretrained", checkpoint="backbone.pth"),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.05))
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
