# BYOL: LARS without decay and ratio on biases and norm layers, 10 epochs of warm-up, cosine to 0 per iteration.
# lr is for a batch of 128.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="ForeachLARS", lr=0.1, momentum=0.9, weight_decay=1.5e-6, exclude_1d=True),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=10, convert_to_iter_based=True),
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=200)
auto_scale_lr = dict(enable=True, base_batch_size=128)
