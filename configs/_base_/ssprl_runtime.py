# The hooks of pre-training and of SS-PRL's prototypes.
_base_ = "./pretraining_runtime.py"

default_hooks = dict(normalize_prototypes=dict(type="NormalizePrototypesHook"))
