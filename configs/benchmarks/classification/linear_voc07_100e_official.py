# Linear classifier on a frozen ResNet-50, VOC 2007 trainval -> test; as the authors' code does it.
# Command: python tools/train.py configs/benchmarks/classification/linear_voc07_100e_official.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# Against the paper: twice the epochs, random crops, other regularisation, schedule and initial weights.
_base_ = "./linear_voc07_50e.py"

_augmented = [
    dict(type="LoadRGBImage", skip_broken=False),
    dict(type="SeedTransforms"),
    dict(type="RandomResizedCrop", scale=224, backend="pillow"),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
model = dict(
    head=dict(init_cfg=dict(type="Normal", layer="Linear", std=0.01, bias=0.1)),
    data_preprocessor=dict(std=[58.14, 57.12, 57.375]),  # 255 * (.228, .224, .225)
)
train_dataloader = dict(dataset=dict(pipeline=_augmented))
optim_wrapper = dict(optimizer=dict(lr=0.03, weight_decay=1e-6), clip_grad=dict(max_norm=10))
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", T_max=100, eta_min=0)
train_cfg = dict(max_epochs=100)
