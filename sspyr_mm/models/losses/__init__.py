"""Losses: pure functions, wrapped by thin modules."""

from sspyr_mm.models.losses.contrast import info_nce, regression
from sspyr_mm.models.losses.cross_scale_loss import CrossScaleLoss, cross_scale_cross_entropy
from sspyr_mm.models.losses.swapped_prediction_loss import SwappedPredictionLoss, swapped_cross_entropy

__all__ = [
    "CrossScaleLoss",
    "SwappedPredictionLoss",
    "cross_scale_cross_entropy",
    "info_nce",
    "regression",
    "swapped_cross_entropy",
]
