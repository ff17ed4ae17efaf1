"""Random transforms of any library, made to depend on the sample and the epoch alone."""

import random
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS

from sspyr_mm.datasets.transforms.sample_seed import SampleSeed


@TRANSFORMS.register_module()
class SeedTransforms(SampleSeed, BaseTransform):
    """Seeds the generators that random transforms after it draw from: Python's, NumPy's and torch's.

    With :class:`ViewSeedHook` a sample is augmented alike whatever the number of workers or processes, and after a
    restart. Without it nothing is seeded.

    Required keys: ``sample_idx`` once an epoch is set. Modified keys: none. Added keys: none.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Seeds.

        Args:
            results: Of one sample; passed on.

        Raises:
            ValueError: If ``sample_idx`` is missing.
        """
        seed = self.sample_seed(results)
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        return results
