"""Heads."""

from sspyr_mm.models.heads.bootstrap_head import BootstrapHead
from sspyr_mm.models.heads.contrast_head import ContrastHead
from sspyr_mm.models.heads.multi_label_head import MaskedMultiLabelHead
from sspyr_mm.models.heads.ssprl_head import SSPRLHead

__all__ = ["BootstrapHead", "ContrastHead", "MaskedMultiLabelHead", "SSPRLHead"]
