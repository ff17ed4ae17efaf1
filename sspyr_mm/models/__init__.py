"""Networks, heads and losses. Importing the package registers all of them."""

from sspyr_mm.models.assigners import FeatureQueue, SinkhornAssigner
from sspyr_mm.models.data_preprocessors import PyramidAugment
from sspyr_mm.models.heads import MaskedMultiLabelHead, SSPRLHead
from sspyr_mm.models.layers import CorrelationLearner, Prototypes
from sspyr_mm.models.losses import CrossScaleLoss, SwappedPredictionLoss
from sspyr_mm.models.necks import PoolLast, PyramidProjector
from sspyr_mm.models.selfsup import SSPRL

__all__ = [
    "SSPRL",
    "CorrelationLearner",
    "CrossScaleLoss",
    "FeatureQueue",
    "MaskedMultiLabelHead",
    "PoolLast",
    "Prototypes",
    "PyramidAugment",
    "PyramidProjector",
    "SSPRLHead",
    "SinkhornAssigner",
    "SwappedPredictionLoss",
]
