"""Device-side augmentation."""

from sspyr_mm.models.data_preprocessors.pyramid_augment import PyramidAugment

__all__ = ["PyramidAugment"]
