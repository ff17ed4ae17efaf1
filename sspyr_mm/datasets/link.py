"""What a data set's transforms have to be told before they cut views."""

from collections.abc import Iterator
from typing import Any

from sspyr_mm.pyramid import PyramidSpec


def set_pyramid(dataset: Any, spec: PyramidSpec) -> None:
    """Hands a pyramid to the transforms that cut it.

    Args:
        dataset: A data set, or one that wraps others.
        spec: The model's pyramid.

    Raises:
        ValueError: If a transform has another one.
    """
    for transform in _transforms_with("set_pyramid", dataset):
        transform.set_pyramid(spec)


def set_epoch(dataset: Any, epoch: int, *, seed: int) -> None:
    """Fixes the random numbers of an epoch's views.

    Args:
        dataset: A data set, or one that wraps others.
        epoch: From 0.
        seed: The run's, the same on every rank.
    """
    for transform in _transforms_with("set_epoch", dataset):
        transform.set_epoch(epoch, seed=seed)


def inner_datasets(dataset: Any) -> list[Any]:
    """What mmengine's wrappers (``ConcatDataset``, ``RepeatDataset``, ...) are wrapped around.

    Args:
        dataset: Any data set.

    Returns:
        Its parts; empty if it wraps nothing.
    """
    parts = [*getattr(dataset, "datasets", []), getattr(dataset, "dataset", None)]
    return [part for part in parts if part is not None]


def _transforms_with(method: str, dataset: Any) -> Iterator[Any]:
    for inner in inner_datasets(dataset):
        yield from _transforms_with(method, inner)
    for transform in getattr(getattr(dataset, "pipeline", None), "transforms", []):
        if hasattr(transform, method):
            yield transform
