"""Features of images from frozen backbones: extracted once, kept in shards, written for other programs."""

from sspyr_mm.features.export import FORMATS, write_features
from sspyr_mm.features.extraction import FrozenEncoder, cached_features, extract_features

__all__ = ["FORMATS", "FrozenEncoder", "cached_features", "extract_features", "write_features"]
