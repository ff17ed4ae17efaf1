# InsLoc (InstanceLoc), FPN variant, ResNet-50 on COCO train2014 without labels; row "InsLoc" of the paper's tables S-A
# and S-B (COCO).
# Command: tools/dist_train.sh configs/insloc/r50_coco_200e.py 4      (4 x 32 images)
# Views (except backgrounds, which are other images of the batch), boxes, networks, queues, temperature and momentum:
# the authors'. lr: theirs for ImageNet (0.03 for 256 images), scaled linearly with the batch; none was published for
# COCO. Not reproduced here.
_base_ = "../mocov2/r50_coco_200e.py"

model = dict(
    type="InsLoc",
    views=dict(main=dict(region=256, patch=256, area=(0.2, 1.0), aspect=(0.5, 2.0), paste=(128, 254))),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(
        _delete_=True,
        type="RegionProjector",
        in_channels=(256, 512, 1024, 2048),
        norm_cfg=dict(type="GroupedBN", group_size=32),
    ),
    head=dict(terms=dict(p0=dict(), p1=dict(), p2=dict(), p3=dict())),
)
optim_wrapper = dict(optimizer=dict(lr=0.015, nesterov=True))
