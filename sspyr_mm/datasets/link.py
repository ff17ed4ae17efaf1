"""The settings that a data set's transforms take from the model and the run: pyramid, seed and epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from sspyr_mm.datasets.samplers import ResumableSampler
from sspyr_mm.datasets.streaming.streamed import StreamedImages
from sspyr_mm.datasets.transforms import LoadRGBImage, PyramidViewTransform
from sspyr_mm.datasets.transforms.sample_seed import SampleSeed
from sspyr_mm.pyramid import PyramidSpec


def build_pretraining_dataset(cfg: Config, *, seed: int = 0) -> Any:
    """Builds the training images of a config, ready to be read as in the first epoch.

    Args:
        cfg: Pre-training config.
        seed: Seed of the views.

    Returns:
        The data set; its transforms have the pyramid of ``cfg.model``.

    Raises:
        ValueError: If a transform has another pyramid.
    """
    init_default_scope("mmpretrain")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    set_pyramid(dataset, PyramidSpec.from_config(cfg.model.pyramid))
    set_epoch(dataset, 0, seed=seed)
    return dataset


def set_pyramid(dataset: Any, spec: PyramidSpec) -> None:
    """Sets the pyramid of the transforms that cut or decode by it.

    Args:
        dataset: A data set, or one that wraps others.
        spec: The model's pyramid.

    Raises:
        ValueError: If a transform has another one.
    """
    for transform in _transforms(dataset):
        if isinstance(transform, (LoadRGBImage, PyramidViewTransform)):
            transform.set_pyramid(spec)


def set_epoch(dataset: Any, epoch: int, *, seed: int) -> None:
    """Sets the epoch from which the random numbers of views are derived.

    Args:
        dataset: A data set, or one that wraps others.
        epoch: From 0.
        seed: The run's, the same on every rank.
    """
    for transform in _transforms(dataset):
        if isinstance(transform, SampleSeed):
            transform.set_epoch(epoch, seed=seed)


def start_epoch(
    loader: Any, epoch: int, *, seed: int, done: int = 0, begun: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Sets order, position and views of an epoch, of files and of streamed shards alike.

    Args:
        loader: Training loader.
        epoch: From 0.
        seed: The run's, the same on every rank.
        done: Iterations of this epoch that an interrupted run has finished.
        begun: Return value of this function when the epoch was begun.

    Returns:
        State that a checkpoint must keep to continue the epoch; None for files.

    Raises:
        TypeError: If iterations are to be skipped by a sampler that cannot.
    """
    set_epoch(loader.dataset, epoch, seed=seed)
    if isinstance(loader.dataset, StreamedImages):
        return loader.dataset.start_epoch(
            epoch,
            seed=seed,
            batch_size=loader.batch_size,
            num_workers=loader.num_workers,
            done=done,
            begun=begun,
        )
    if isinstance(loader.sampler, DefaultSampler):
        loader.sampler.seed = seed  # a checkpoint brings its own, after the sampler was made
    if isinstance(loader.sampler, ResumableSampler):
        loader.sampler.skip(done * loader.batch_size)
    elif done:
        raise TypeError(
            f"Resuming within an epoch needs ResumableSampler, got {type(loader.sampler).__name__}: set "
            "train_dataloader.sampler.type to it, or resume from an epoch_N.pth"
        )
    return None


def inner_datasets(dataset: Any) -> list[Any]:
    """Data sets inside one of mmengine's wrappers (``ConcatDataset``, ``RepeatDataset``, ...).

    Args:
        dataset: Any data set.

    Returns:
        Its parts; empty if it wraps nothing.
    """
    parts = [*getattr(dataset, "datasets", []), getattr(dataset, "dataset", None)]
    return [part for part in parts if part is not None]


def _transforms(dataset: Any) -> Iterator[Any]:
    for inner in inner_datasets(dataset):
        yield from _transforms(inner)
    yield from getattr(getattr(dataset, "pipeline", None), "transforms", [])
