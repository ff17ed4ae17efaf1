"""Networks, heads and losses. Importing the package registers all of them."""

from sspyr_mm.models.assigners import FeatureQueue, SinkhornAssigner
from sspyr_mm.models.data_preprocessors import PyramidAugment
from sspyr_mm.models.heads import BootstrapHead, ContrastHead, MaskedMultiLabelHead, SSPRLHead
from sspyr_mm.models.layers import CorrelationLearner, GroupedBatchNorm, Prototypes
from sspyr_mm.models.losses import CrossScaleLoss, SwappedPredictionLoss, info_nce, regression
from sspyr_mm.models.necks import (
    DenseProjector,
    LevelProjectors,
    MLPProjector,
    PoolLast,
    PyramidProjector,
    RegionProjector,
)
from sspyr_mm.models.selfsup import (
    SSPRL,
    Bootstrap,
    DenseMoCo,
    DetCo,
    InsLoc,
    MaskCo,
    MoCoV2,
    MomentumModel,
    ViewModel,
    pretraining_models,
)

__all__ = [
    "SSPRL",
    "Bootstrap",
    "BootstrapHead",
    "ContrastHead",
    "CorrelationLearner",
    "CrossScaleLoss",
    "DenseMoCo",
    "DenseProjector",
    "DetCo",
    "FeatureQueue",
    "GroupedBatchNorm",
    "InsLoc",
    "LevelProjectors",
    "MLPProjector",
    "MaskCo",
    "MaskedMultiLabelHead",
    "MoCoV2",
    "MomentumModel",
    "PoolLast",
    "Prototypes",
    "PyramidAugment",
    "PyramidProjector",
    "RegionProjector",
    "SSPRLHead",
    "SinkhornAssigner",
    "SwappedPredictionLoss",
    "ViewModel",
    "info_nce",
    "pretraining_models",
    "regression",
]
