"""Passes the views of the model, the seed, the epoch and the list of broken images to the parts of a data set."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from sspyr_mm.datasets.samplers import ResumableSampler
from sspyr_mm.datasets.streaming.streamed import StreamedImages
from sspyr_mm.datasets.transforms import LoadRGBImage, PyramidViewTransform
from sspyr_mm.datasets.transforms.seeding import SampleSeed
from sspyr_mm.pyramid import views_of
from sspyr_mm.views import ViewsSpec


def build_pretraining_dataset(cfg: Config, *, seed: int = 0) -> Any:
    """Builds the training data set of a pre-training config, with the views of its model, set to the first epoch.

    The ``seed`` is that of the views. Raises ValueError if a transform has different views.
    """
    init_default_scope("mmpretrain")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    set_views(dataset, views_of(cfg.model))
    set_epoch(dataset, 0, seed=seed)
    return dataset


def set_views(dataset: Any, views: ViewsSpec) -> None:
    """Sets the views of the model in the transforms of a data set, or of a wrapper, that crop or decode by them.

    Raises ValueError if a transform has different ones.
    """
    for transform in _transforms(dataset):
        if isinstance(transform, (LoadRGBImage, PyramidViewTransform)):
            transform.set_views(views)


def record_broken(dataset: Any, file: Path) -> None:
    """Makes a data set append the images and shards that it cannot read to a file; called before workers are started.

    :func:`sspyr_mm.datasets.broken.read_appended` reads the file.
    """
    for part in (dataset, *_transforms(dataset)):
        if isinstance(part, (LoadRGBImage, StreamedImages)):
            part.broken.append_to(file)


def set_epoch(dataset: Any, epoch: int, *, seed: int) -> None:
    """Sets the epoch, from 0, and the seed, the same on every rank, from which views derive their random numbers."""
    for transform in _transforms(dataset):
        if isinstance(transform, SampleSeed):
            transform.set_epoch(epoch, seed=seed)


def start_epoch(
    loader: Any, epoch: int, *, seed: int, done: int = 0, begun: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Sets the order, start position and views of an epoch, for image files and streamed shards.

    Returns the state that a checkpoint must save to continue the epoch, None for image files. To continue, pass it as
    ``begun``, and the number of finished iterations as ``done``. Raises TypeError if ``done`` is positive and the
    sampler cannot skip samples.
    """
    set_epoch(loader.dataset, epoch, seed=seed)
    if isinstance(loader.dataset, StreamedImages):
        return loader.dataset.start_epoch(
            epoch, seed=seed, batch_size=loader.batch_size, num_workers=loader.num_workers, done=done, begun=begun
        )
    if isinstance(loader.sampler, DefaultSampler):
        loader.sampler.seed = seed  # the seed of a checkpoint is known only after the sampler is built
    if isinstance(loader.sampler, ResumableSampler):
        loader.sampler.skip(done * loader.batch_size)
    elif done:
        raise TypeError(
            f"Resuming within an epoch needs ResumableSampler, got {type(loader.sampler).__name__}: set "
            "train_dataloader.sampler.type to it, or resume from an epoch_N.pth"
        )
    return None


def inner_datasets(dataset: Any) -> list[Any]:
    """Returns the data sets inside a wrapper of mmengine (``ConcatDataset``, ``RepeatDataset``, ...), else none."""
    parts = [*getattr(dataset, "datasets", []), getattr(dataset, "dataset", None)]
    return [part for part in parts if part is not None]


def image_decoding(dataset: Any) -> dict[str, Any]:
    """Returns the options of ``LoadRGBImage`` that pixel values depend on; none without this transform."""
    for transform in _transforms(dataset):
        if isinstance(transform, LoadRGBImage):
            return {"value_range": transform.options.value_range, "background": transform.options.background}
    return {}


def _transforms(dataset: Any) -> Iterator[Any]:
    for inner in inner_datasets(dataset):
        yield from _transforms(inner)
    yield from getattr(getattr(dataset, "pipeline", None), "transforms", [])
