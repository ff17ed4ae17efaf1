"""Formats of checkpoints: what is read, and what is written."""

from sspyr_mm.checkpoints.formats.sources import FORMATS
from sspyr_mm.checkpoints.formats.targets import TARGETS

__all__ = ["FORMATS", "TARGETS"]
