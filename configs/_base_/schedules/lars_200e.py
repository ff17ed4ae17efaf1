# Paper: LARS, lr 0.6 for a batch of 128, cosine to 0.0006 per iteration, no warm-up, 200 epochs.
_base_ = "mmpretrain::_base_/schedules/imagenet_lars_coslr_200e.py"

optim_wrapper = dict(
    optimizer=dict(type="ForeachLARS", lr=0.6, momentum=0.9, weight_decay=1e-6, trust_coefficient=0.001)
)
param_scheduler = [
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=0.001,  # 0.6 -> 0.0006
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(enable=True, base_batch_size=128)
