"""Layers."""

from sspyr_mm.models.layers.correlation_learner import CorrelationLearner
from sspyr_mm.models.layers.pooling import pool
from sspyr_mm.models.layers.prototypes import Prototypes
from sspyr_mm.models.layers.recompute import recompute_stages, recomputed

__all__ = ["CorrelationLearner", "Prototypes", "pool", "recompute_stages", "recomputed"]
