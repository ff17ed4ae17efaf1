"""Imports every module that registers a component with mmpretrain's registries."""

import sspyr_mm.datasets
import sspyr_mm.engine
import sspyr_mm.models  # noqa: F401
