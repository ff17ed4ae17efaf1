# mmpretrain's runtime and the hooks of pre-training. Hooks are a dict, so that a variant changes one number of one.
_base_ = "mmpretrain::_base_/default_runtime.py"

custom_imports = dict(imports=["sspyr_mm.registration"], allow_failed_imports=False)
runner_type = "TrainingRunner"
default_hooks = dict(
    runtime_info=dict(type="DeferredRuntimeInfoHook"),
    logger=dict(interval=50),
    checkpoint=dict(interval=10, max_keep_ckpts=3),
    pyramid_link=dict(type="PyramidLinkHook"),
    view_seed=dict(type="ViewSeedHook"),
    data_check=dict(type="DataCheckHook"),
    broken_images=dict(type="BrokenImagesHook"),
    health=dict(type="HealthHook"),
    throughput=dict(type="ThroughputHook"),
    divergence=dict(type="DivergenceHook"),
    accumulation=dict(type="AccumulationHook"),
    interrupt=dict(type="InterruptHook"),
    stall=dict(type="StallHook"),
    view_sheet=dict(type="ViewSheetHook"),
)
randomness = dict(seed=0)
