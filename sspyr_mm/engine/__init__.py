"""Hooks, optimisers and launching. Importing the package registers all of them."""

from sspyr_mm.engine import hooks, optimizers
from sspyr_mm.engine.optim_wrapper import AutocastOptimWrapper

__all__ = ["AutocastOptimWrapper", "hooks", "optimizers"]
