"""Heads."""

from sspyr_mm.models.heads.ssprl_head import SSPRLHead

__all__ = ["SSPRLHead"]
