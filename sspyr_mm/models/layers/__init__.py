"""Layers."""

from sspyr_mm.models.layers.batch_shuffle import BatchShuffle
from sspyr_mm.models.layers.correlation_learner import CorrelationLearner
from sspyr_mm.models.layers.grouped_norm import GroupedBatchNorm, average_statistics, rows_per_image
from sspyr_mm.models.layers.mlp import build_mlp, build_norm
from sspyr_mm.models.layers.momentum_encoder import MomentumEncoder
from sspyr_mm.models.layers.pooling import crop_map, last_output, pool, pool_cells, precise
from sspyr_mm.models.layers.prototypes import Prototypes
from sspyr_mm.models.layers.recompute import recompute_stages, recomputed

__all__ = [
    "BatchShuffle",
    "CorrelationLearner",
    "GroupedBatchNorm",
    "MomentumEncoder",
    "Prototypes",
    "average_statistics",
    "build_mlp",
    "build_norm",
    "crop_map",
    "last_output",
    "pool",
    "pool_cells",
    "precise",
    "recompute_stages",
    "recomputed",
    "rows_per_image",
]
