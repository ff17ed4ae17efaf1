"""Necks."""

from sspyr_mm.models.necks.pyramid_projector import PyramidProjector

__all__ = ["PyramidProjector"]
