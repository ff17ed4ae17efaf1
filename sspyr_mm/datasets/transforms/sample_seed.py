"""One seed per sample and epoch, so that random transforms do not depend on the number of processes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class SampleSeed:
    """Base class of transforms that derive a seed per sample from the run's seed and the epoch.

    State: seed and epoch, in shared memory, so that persistent workers see changes by the main process; not saved in
    checkpoints.
    """

    def __init__(self) -> None:
        self._clock = torch.full((2,), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, *, seed: int) -> None:
        """Sets the seed and the epoch; called before each epoch.

        Args:
            epoch: Next epoch, from 0.
            seed: Seed of the run, the same on every rank.
        """
        self._clock.copy_(torch.tensor([seed, epoch]))

    def sample_seed(self, results: Mapping[str, Any]) -> int | None:
        """Returns the seed of a sample in this epoch.

        Args:
            results: Sample with ``sample_idx``.

        Returns:
            Seed below 2^63, or None before an epoch is set.

        Raises:
            ValueError: If ``sample_idx`` is missing once an epoch is set.
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
