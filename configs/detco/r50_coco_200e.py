# DetCo, ResNet-50 on COCO train2014 without labels; row "DetCo" of the paper's tables S-A and S-B (COCO).
# Command: tools/dist_train.sh configs/detco/r50_coco_200e.py 4      (4 x 32 images; 1 x 128 is equivalent)
# Views, queues and momentum: the authors'. Weights of the levels, temperature and lr: the unofficial code's. Width of
# the projectors: a choice, none was published. Not reproduced here.
_base_ = "../mocov2/r50_coco_200e.py"

model = dict(
    type="DetCo",
    views=dict(jigsaw=dict(num_views=2, region=255, grid=3, patch=64, area=(0.6, 1.0), jigsaw=True)),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(type="LevelProjectors", in_channels=(256, 512, 1024, 2048)),
)
optim_wrapper = dict(optimizer=dict(lr=0.015))
