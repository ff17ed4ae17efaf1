"""Hooks for pre-training and classification."""

from sspyr_mm.engine.hooks.data_check_hook import DataCheckHook
from sspyr_mm.engine.hooks.data_hooks import BrokenImagesHook, PyramidLinkHook, ViewSeedHook
from sspyr_mm.engine.hooks.divergence_hook import DivergenceError, DivergenceHook
from sspyr_mm.engine.hooks.health_hook import HealthHook
from sspyr_mm.engine.hooks.log_hooks import DeferredRuntimeInfoHook, ProgressBarHook, ThroughputHook
from sspyr_mm.engine.hooks.method_hooks import (
    FreezePrototypesHook,
    MomentumHook,
    NormalizePrototypesHook,
    QueueHook,
)
from sspyr_mm.engine.hooks.stall_hook import StallHook

__all__ = [
    "BrokenImagesHook",
    "DataCheckHook",
    "DeferredRuntimeInfoHook",
    "DivergenceError",
    "DivergenceHook",
    "FreezePrototypesHook",
    "HealthHook",
    "MomentumHook",
    "NormalizePrototypesHook",
    "ProgressBarHook",
    "PyramidLinkHook",
    "QueueHook",
    "StallHook",
    "ThroughputHook",
    "ViewSeedHook",
]
