"""Heads."""

from sspyr_mm.models.heads.multi_label_head import MaskedMultiLabelHead
from sspyr_mm.models.heads.ssprl_head import SSPRLHead

__all__ = ["MaskedMultiLabelHead", "SSPRLHead"]
