# DetCo at CPU size: ResNet-18 of width 16, images of 64 px, 3 x 3 patches of 24 px, batch 64. No published counterpart.
# Command: python tools/train.py configs/detco/r18_small.py --data-root DIR
_base_ = "../mocov2/r18_small.py"

model = dict(
    type="DetCo",
    views=dict(jigsaw=dict(num_views=2, region=96, grid=3, patch=24, area=(0.6, 1.0), jigsaw=True)),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    neck=dict(type="LevelProjectors", in_channels=(16, 32, 64, 128)),
    head=dict(
        terms=dict(
            # Images, patches, and patches against the keys of images, at the four levels.
            image2=dict(query="g0", key="g0", weight=0.1),
            image3=dict(query="g1", key="g1", weight=0.4),
            image4=dict(query="g2", key="g2", weight=0.7),
            image5=dict(query="g3", key="g3", weight=1.0),
            patch2=dict(query="l0", key="l0", weight=0.1),
            patch3=dict(query="l1", key="l1", weight=0.4),
            patch4=dict(query="l2", key="l2", weight=0.7),
            patch5=dict(query="l3", key="l3", weight=1.0),
            across2=dict(query="l0", key="g0", weight=0.1),
            across3=dict(query="l1", key="g1", weight=0.4),
            across4=dict(query="l2", key="g2", weight=0.7),
            across5=dict(query="l3", key="g3", weight=1.0),
        ),
    ),
)
