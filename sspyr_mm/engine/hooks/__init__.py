"""Hooks, one purpose each."""

from sspyr_mm.engine.hooks.complete_weights_hook import CompleteWeightsHook
from sspyr_mm.engine.hooks.data_check_hook import DataCheckHook
from sspyr_mm.engine.hooks.data_hooks import PyramidLinkHook, ViewSeedHook
from sspyr_mm.engine.hooks.divergence_hook import DivergenceError, DivergenceHook
from sspyr_mm.engine.hooks.interrupt_hook import InterruptHook
from sspyr_mm.engine.hooks.loss_watch_hook import LossWatchHook
from sspyr_mm.engine.hooks.precise_bn_hook import PreciseBNBeforeValHook
from sspyr_mm.engine.hooks.prediction_pictures_hook import PredictionPicturesHook
from sspyr_mm.engine.hooks.progress_hook import ProgressBarHook
from sspyr_mm.engine.hooks.prototype_hooks import (
    FreezePrototypesHook,
    NormalizePrototypesHook,
    QueueHook,
)
from sspyr_mm.engine.hooks.runtime_info_hook import DeferredRuntimeInfoHook
from sspyr_mm.engine.hooks.throughput_hook import ThroughputHook

__all__ = [
    "CompleteWeightsHook",
    "DataCheckHook",
    "DeferredRuntimeInfoHook",
    "DivergenceError",
    "DivergenceHook",
    "FreezePrototypesHook",
    "InterruptHook",
    "LossWatchHook",
    "NormalizePrototypesHook",
    "PreciseBNBeforeValHook",
    "PredictionPicturesHook",
    "ProgressBarHook",
    "PyramidLinkHook",
    "QueueHook",
    "ThroughputHook",
    "ViewSeedHook",
]
