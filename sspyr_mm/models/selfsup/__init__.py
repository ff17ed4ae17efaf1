"""Algorithms."""

from sspyr_mm.models.selfsup.bootstrap import Bootstrap
from sspyr_mm.models.selfsup.dense_contrast import DenseMoCo
from sspyr_mm.models.selfsup.detco import DetCo
from sspyr_mm.models.selfsup.insloc import InsLoc
from sspyr_mm.models.selfsup.maskco import MaskCo
from sspyr_mm.models.selfsup.momentum_contrast import MoCoV2, MomentumModel
from sspyr_mm.models.selfsup.ssprl import SSPRL
from sspyr_mm.models.selfsup.view_model import ViewModel, pretraining_models

__all__ = [
    "SSPRL",
    "Bootstrap",
    "DenseMoCo",
    "DetCo",
    "InsLoc",
    "MaskCo",
    "MoCoV2",
    "MomentumModel",
    "ViewModel",
    "pretraining_models",
]
