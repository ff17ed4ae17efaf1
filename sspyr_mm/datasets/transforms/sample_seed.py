"""One seed per sample and epoch: what makes random transforms the same on any number of processes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class SampleSeed:
    """Of a transform: knows the run's seed and the epoch, also in workers that outlive an epoch."""

    def __init__(self) -> None:
        # In shared memory: workers that outlive an epoch see what the main process sets.
        self._clock = torch.full((2,), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int, *, seed: int) -> None:
        """Fixes where random numbers come from; called before each epoch.

        Args:
            epoch: Epoch to come, from 0.
            seed: The run's seed, the same on every rank.
        """
        self._clock.copy_(torch.tensor([seed, epoch]))

    def sample_seed(self, results: Mapping[str, Any]) -> int | None:
        """The seed of a sample in this epoch.

        Args:
            results: With ``sample_idx``.

        Returns:
            A number below 2^63, or None before an epoch is set.

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
