# The hooks of pre-training and of the momentum encoder.
_base_ = "./pretraining_runtime.py"

default_hooks = dict(momentum=dict(type="MomentumHook", momentum=0.999))
