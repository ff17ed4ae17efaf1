# Any labelled images; data_root: a VOC tree (with split), a COCO json or a CSV. The centre crop, in training as well.
_centre = [
    dict(type="LoadRGBImage", skip_broken=False),
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow", interpolation="bilinear"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    sampler=dict(type="ResumableSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    worker_init_fn=dict(type="answer_to_parent_only"),
    dataset=dict(type="MultiLabelImages", data_root="data/VOCdevkit/VOC2007", pipeline=_centre),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="MultiLabelImages", data_root="data/VOCdevkit/VOC2007", pipeline=_centre),
)
test_dataloader = val_dataloader
