"""Algorithms."""

from sspyr_mm.models.selfsup.ssprl import SSPRL

__all__ = ["SSPRL"]
