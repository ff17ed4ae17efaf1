# mmdet's runtime, counting iterations; weights that do not fit are an error; batch norm is precise when it is measured.
_base_ = "mmdet::_base_/default_runtime.py"

runner_type = "TrainingRunner"
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=15000, max_keep_ckpts=2),
    complete_weights=dict(type="mmpretrain.CompleteWeightsHook"),
    precise_bn=dict(type="mmpretrain.PreciseBNBeforeValHook", num_iters=200),
    predictions=dict(type="mmpretrain.PredictionImagesHook"),
    divergence=dict(type="mmpretrain.DivergenceHook"),
    accumulation=dict(type="mmpretrain.AccumulationHook"),
    interrupt=dict(type="mmpretrain.InterruptHook"),
    stall=dict(type="mmpretrain.StallHook"),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
