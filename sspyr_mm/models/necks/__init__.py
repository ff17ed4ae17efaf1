"""Necks."""

from sspyr_mm.models.necks.dense_projector import DenseProjector
from sspyr_mm.models.necks.level_projectors import LevelProjectors
from sspyr_mm.models.necks.mlp_projector import MLPProjector
from sspyr_mm.models.necks.pool_last import PoolLast
from sspyr_mm.models.necks.pyramid_projector import PyramidProjector
from sspyr_mm.models.necks.region_projector import RegionProjector

__all__ = ["DenseProjector", "LevelProjectors", "MLPProjector", "PoolLast", "PyramidProjector", "RegionProjector"]
