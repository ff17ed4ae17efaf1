"""Registers every component with mmpretrain's registries, and makes bases of forks resolvable; on import."""

import sspyr_mm.datasets
import sspyr_mm.engine
import sspyr_mm.evaluation
import sspyr_mm.models  # noqa: F401
from sspyr_mm.compat import register_forks

register_forks()
