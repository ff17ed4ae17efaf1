"""Transforms in the workers of a loader: decoding, cropping of regions and seeding."""

from sspyr_mm.datasets.transforms.loading import LoadRGBImage
from sspyr_mm.datasets.transforms.pyramid_view import PackPyramidInputs, PyramidViewTransform
from sspyr_mm.datasets.transforms.seeding import SeedTransforms

__all__ = ["LoadRGBImage", "PackPyramidInputs", "PyramidViewTransform", "SeedTransforms"]
