"""Hooks, optimizers and CPU training. Importing the package registers all of them."""

from sspyr_mm.engine import cpu, hooks, optimizers, transfer_hooks
from sspyr_mm.engine.optim_wrapper import AccumulationHook, AutocastOptimWrapper

__all__ = ["AccumulationHook", "AutocastOptimWrapper", "cpu", "hooks", "optimizers", "transfer_hooks"]
