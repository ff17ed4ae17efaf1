# SGD for contrast of keys: cosine to 0 per iteration, no warm-up, weight decay on everything. lr is for a batch of 128.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.15, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=200)
auto_scale_lr = dict(enable=True, base_batch_size=128)
