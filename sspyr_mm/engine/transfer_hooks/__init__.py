"""Hooks for detection and segmentation."""

from sspyr_mm.engine.transfer_hooks.complete_weights_hook import CompleteWeightsHook
from sspyr_mm.engine.transfer_hooks.precise_bn_hook import PreciseBNBeforeValHook
from sspyr_mm.engine.transfer_hooks.prediction_images_hook import PredictionImagesHook

__all__ = ["CompleteWeightsHook", "PreciseBNBeforeValHook", "PredictionImagesHook"]
