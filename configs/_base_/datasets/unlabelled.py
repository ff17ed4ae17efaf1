# Any images. data_root: a folder (searched in depth), a .txt list, a COCO .json, or a list of these.
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="ResumableSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    worker_init_fn=dict(type="answer_to_parent_only"),
    dataset=dict(
        type="UnlabelledImages",
        data_root="data/coco/train2014",
        pipeline=[
            dict(type="LoadRGBImage"),
            dict(type="PyramidViewTransform"),
            dict(type="PackPyramidInputs"),
        ],
    ),
)
