# mmpretrain's runtime; weights that do not fit are an error; a run that was stopped continues to the same figure.
_base_ = "mmpretrain::_base_/default_runtime.py"

custom_imports = dict(imports=["sspyr_mm.registration"], allow_failed_imports=False)
runner_type = "TrainingRunner"
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=2),  # the one before, should the last be damaged
    complete_weights=dict(type="CompleteWeightsHook"),
    view_seed=dict(type="ViewSeedHook"),
    divergence=dict(type="DivergenceHook"),
    accumulation=dict(type="AccumulationHook"),
    interrupt=dict(type="InterruptHook"),
    stall=dict(type="StallHook"),
)
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type="MultiLabelReport")
test_evaluator = dict(type="MultiLabelReport")
randomness = dict(seed=0)
