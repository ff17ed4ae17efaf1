"""Hooks, optimizers and CPU training. Importing the package registers all of them."""

from sspyr_mm.engine import cpu, hooks, optimizers, saving, transfer_hooks
from sspyr_mm.engine.optim_wrapper import AccumulationHook, AutocastOptimWrapper
from sspyr_mm.engine.runner import TrainingRunner

__all__ = [
    "AccumulationHook",
    "AutocastOptimWrapper",
    "TrainingRunner",
    "cpu",
    "hooks",
    "optimizers",
    "saving",
    "transfer_hooks",
]
