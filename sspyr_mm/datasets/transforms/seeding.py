"""Seeding of random transforms by the sample, so that they do not depend on the number of processes."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS


class SampleSeed:
    """Base class of transforms that derive a seed per sample from the seed of the run and the epoch.

    State: seed and epoch, in shared memory, so that persistent workers see changes by the main process; not saved in
    checkpoints.
    """

    def __init__(self) -> None:
        self._clock = torch.full((2,), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, *, seed: int) -> None:
        """Sets the next epoch, from 0, and the seed of the run, which is the same on every rank."""
        self._clock.copy_(torch.tensor([seed, epoch]))

    def sample_seed(self, results: Mapping[str, Any]) -> int | None:
        """Returns the seed of a sample in this epoch, below 2^63; None before an epoch is set.

        Raises ValueError if ``sample_idx`` is missing once an epoch is set.
        """
        seed, epoch = self._clock.tolist()
        if epoch < 0:
            return None
        if "sample_idx" not in results:
            raise ValueError(
                f"{type(self).__name__} needs `sample_idx` once an epoch is set: use a data set derived from "
                "mmengine's BaseDataset, or add the key in a transform"
            )
        entropy = np.random.SeedSequence((seed, epoch, results["sample_idx"]))
        return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


@TRANSFORMS.register_module()
class SeedTransforms(SampleSeed, BaseTransform):
    """Seeds the generators of Python, NumPy and torch for the random transforms after it.

    With :class:`ViewSeedHook` the augmentation of a sample is the same for any number of workers or processes, and
    after a restart. Without it nothing is seeded.

    Required keys: ``sample_idx`` once an epoch is set. Modified keys: none. Added keys: none.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Seeds the generators for one sample; raises ValueError if ``sample_idx`` is missing."""
        seed = self.sample_seed(results)
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
        return results
