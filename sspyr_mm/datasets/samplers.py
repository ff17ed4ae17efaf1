"""Sampler that can start in the middle of an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.dataset import DefaultSampler
from mmpretrain.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ResumableSampler(DefaultSampler):
    """``DefaultSampler`` that can skip the samples that an interrupted epoch has already used.

    State: per rank, derived from seed, epoch and position; not persistent.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._num_skipped = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which determines the order, and resets the skip."""
        super().set_epoch(epoch)
        self._num_skipped = 0

    def skip(self, num_samples: int) -> None:
        """Skips samples of this rank at the start of the epoch; ``len()`` still counts the whole epoch."""
        self._num_skipped = num_samples

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self._num_skipped, None)
