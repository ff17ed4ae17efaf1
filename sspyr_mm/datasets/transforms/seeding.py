"""Reproducible seeding of random transforms of other libraries."""

import random
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from sspyr_mm.datasets.transforms.sample_seed import SampleSeed


@TRANSFORMS.register_module()
class SeedTransforms(SampleSeed, BaseTransform):
    """Seeds the generators of Python, NumPy and torch for the random transforms after it.

    With :class:`ViewSeedHook` the augmentation of a sample is the same for any number of workers or processes, and
    after a restart. Without it nothing is seeded.

    Required keys: ``sample_idx`` once an epoch is set. Modified keys: none. Added keys: none.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Seeds the generators for one sample.

        Args:
            results: Sample; returned unchanged.

        Raises:
            ValueError: If ``sample_idx`` is missing.
        """
        seed = self.sample_seed(results)
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        return results
