# SS-PRL as the authors' code trains it: multi-crops, queues, frozen start, its own form of the losses.
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_official.py 2      (2 x 64 images)
# All numbers are those of the authors' script and code. No published result is stated for it. Not reproduced here.
# The script freezes the prototypes for 648 iterations. An epoch of 82 783 images in batches of 128 has 646 here.
_base_ = "./r50_coco_200e.py"

model = dict(
    pyramid=dict(
        s0=dict(queue_length=1920, multi_crop=dict(num_views=6, patch=96, area=(0.05, 0.14))),
        s1=dict(queue_length=5000),
        s2=dict(queue_length=5000),
    ),
    head=dict(variant="official"),
    data_preprocessor=dict(std=(0.228 * 255, 0.224 * 255, 0.225 * 255)),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
default_hooks = dict(
    freeze_prototypes=dict(type="FreezePrototypesHook", num_iters=648),
    queue=dict(type="QueueHook", start_epoch=80),
)
