"""Hooks for detection and segmentation."""

from sspyr_mm.engine.transfer_hooks.complete_weights_hook import CompleteWeightsHook
from sspyr_mm.engine.transfer_hooks.precise_bn_hook import PreciseBNBeforeValHook
from sspyr_mm.engine.transfer_hooks.prediction_pictures_hook import PredictionPicturesHook

__all__ = ["CompleteWeightsHook", "PreciseBNBeforeValHook", "PredictionPicturesHook"]
