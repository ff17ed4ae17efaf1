"""Optimisers."""

from sspyr_mm.engine.optimizers.lars import ForeachLARS

__all__ = ["ForeachLARS"]
