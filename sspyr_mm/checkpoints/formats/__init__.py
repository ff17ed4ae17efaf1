"""Source and target formats of checkpoints."""

from sspyr_mm.checkpoints.formats.sources import FORMATS
from sspyr_mm.checkpoints.formats.targets import TARGETS

__all__ = ["FORMATS", "TARGETS"]
