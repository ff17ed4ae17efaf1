"""A frozen backbone, and its features of the centre crops of images."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import sspyr_mm.datasets  # noqa: F401  # registers what the pipeline names
from sspyr_mm import __version__
from sspyr_mm.benchmarks.classification.feature_store import FeatureStore, file_states
from sspyr_mm.datasets.workers import answer_to_parent_only
from sspyr_mm.files import remove_left_over, shortened
from sspyr_mm.models.layers import pool

__all__ = [
    "BATCH",
    "CentreCrops",
    "FrozenEncoder",
    "cached_features",
    "centre_crop_pipeline",
    "extract_features",
    "iterate_features",
]

BATCH = 64  # images the encoder takes at once


class FrozenEncoder(nn.Module):
    """A backbone in evaluation mode with the normalisation it was trained with.

    Args:
        backbone: Any mmpretrain backbone.
        mean: Per channel (RGB), in 0-255.
        std: Per channel (RGB), in 0-255.
        identity: Key of stored features, such as the hash of its checkpoint.
        decoding: Options of ``LoadRGBImage`` it was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        identity: str,
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.identity = identity
        self.decoding = dict(decoding or {})
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch.

        Args:
            images: (N, 3, H, W) uint8, RGB.

        Returns:
            (N, C) float32: the last stage, averaged over space or tokens.
        """
        return pool(self.backbone((images.float() - self.mean) / self.std)).float()


def centre_crop_pipeline(size: int, decoding: Mapping[str, Any] | None = None) -> list[dict]:
    """The test transform: shorter side to ``size * 256 / 224``, then the centre.

    Args:
        size: Side of the crop in pixels.
        decoding: Options of ``LoadRGBImage``.

    Returns:
        Configs of transforms, from ``img_path`` to ``img`` (size, size, 3) uint8 RGB.
    """
    return [
        dict(type="LoadRGBImage", skip_broken=False, **(decoding or {})),
        dict(
            type="ResizeEdge",
            scale=round(size * 256 / 224),
            edge="short",
            backend="pillow",  # antialiased, as torchvision's Resize
            interpolation="bilinear",
        ),
        dict(type="CenterCrop", crop_size=size),
    ]


class CentreCrops(Dataset):
    """Decoded and cropped images.

    Args:
        paths: N files.
        size: Side of the crop in pixels.
        decoding: Options of ``LoadRGBImage``.
    """

    def __init__(self, paths: Sequence[str], size: int, decoding: Mapping[str, Any] | None = None) -> None:
        init_default_scope("mmpretrain")
        self.paths = list(paths)
        self.pipeline = Compose(centre_crop_pipeline(size, decoding))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """(3, size, size) uint8.

        Raises:
            UnreadableImageError: If the file cannot be read as an image: a labelled image is not left out.
        """
        image = self.pipeline({"img_path": self.paths[index]})["img"]
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def iterate_features(
    encoder: FrozenEncoder,
    paths: Sequence[str],
    batches: Iterable[list[int]],
    *,
    size: int,
    device: str,
    num_workers: int,
) -> Iterator[Tensor]:
    """Computes features batch by batch.

    Args:
        encoder: Frozen network; images are decoded as in its training.
        paths: N files.
        batches: Indices of each batch.
        size: Side of the centre crop in pixels.
        device: Device of the computation.
        num_workers: Processes that decode.

    Yields:
        (B, C) float32 on the CPU.

    Raises:
        UnreadableImageError: If a file cannot be read as an image.
    """
    loader = DataLoader(
        CentreCrops(paths, size, encoder.decoding),
        batch_sampler=batches,
        num_workers=num_workers,
        worker_init_fn=answer_to_parent_only if num_workers else None,
    )
    encoder = encoder.to(device)
    for images in loader:
        yield encoder(images.to(device)).cpu()


def extract_features(
    encoder: FrozenEncoder, paths: Sequence[str], *, size: int, device: str = "cpu", num_workers: int = 0
) -> Tensor:
    """Computes the features of images.

    Args:
        encoder: Frozen network.
        paths: N files.
        size: Side of the centre crop in pixels.
        device: Where to compute.
        num_workers: Processes that decode.

    Returns:
        (N, C) float32 on the CPU.

    Raises:
        UnreadableImageError: If a file cannot be read as an image.
    """
    indices = range(len(paths))
    batches = [list(indices[start : start + BATCH]) for start in indices[::BATCH]]
    return torch.cat(list(iterate_features(encoder, paths, batches, size=size, device=device, num_workers=num_workers)))


def cached_features(
    encoder: FrozenEncoder,
    paths: Sequence[str],
    *,
    size: int,
    cache_dir: str | os.PathLike,
    devices: Sequence[str] = ("cpu",),
    num_workers: int = 2,
) -> Tensor:
    """Features of images, from disk where they exist.

    The key covers the encoder, the transform, and path, size and time of change of every file: an image or checkpoint
    that changes has other features.

    Args:
        encoder: Frozen network.
        paths: N files.
        size: Side of the centre crop in pixels.
        cache_dir: Folder of folders of features, one for each key.
        devices: Each gets a share of the missing shards, in a process of its own if there are several.
        num_workers: Processes that decode, per device.

    Returns:
        (N, C) float32 on the CPU.

    Raises:
        ValueError: If an image can't be decoded.
        OSError: If an image is missing, or the disk does not give back what was written.
    """
    description = _describe(encoder, paths, size)
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]
    store = FeatureStore(Path(cache_dir) / key, len(paths))
    store.folder.mkdir(parents=True, exist_ok=True)
    store.describe(json.dumps(description, indent=1))
    shards = [store.read(shard) for shard in range(store.num_shards)]
    missing = [shard for shard, features in enumerate(shards) if features is None]
    _extract_missing(devices, _Extraction(encoder.cpu(), list(paths), size, store, missing, num_workers))
    remove_left_over(store.folder)
    for shard in missing:
        shards[shard] = store.read(shard)
    if lost := [str(store.file(i)) for i, features in enumerate(shards) if features is None]:
        raise OSError(
            f"{shortened(lost)} can't be read back just after writing: check the disk, or keep the features on another "
            "one"
        )
    return torch.cat([torch.from_numpy(features) for features in shards])


def _describe(encoder: FrozenEncoder, paths: Sequence[str], size: int) -> dict[str, Any]:
    return {
        "encoder": encoder.identity,
        "version": __version__,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
        "pipeline": centre_crop_pipeline(size, encoder.decoding),
        "num_images": len(paths),
        "files": file_states(paths).hex(),
    }


class _Extraction(NamedTuple):
    """The missing shards of a store, and how they are made."""

    encoder: FrozenEncoder
    paths: list[str]
    size: int
    store: FeatureStore
    missing: list[int]
    num_workers: int


def _extract_missing(devices: Sequence[str], task: _Extraction) -> None:
    """Extracts the missing shards, on several devices in processes of their own."""
    if len(devices) == 1 or len(task.missing) < 2:
        _extract_share(0, devices[:1], task)
        return
    try:
        torch.multiprocessing.spawn(_extract_share, (devices, task), nprocs=len(devices))
    except torch.multiprocessing.ProcessRaisedException as error:  # its message is the last line
        raise ValueError(str(error).strip().splitlines()[-1]) from error


def _extract_share(rank: int, devices: Sequence[str], task: _Extraction) -> None:
    """Extracts every ``len(devices)``-th of the missing shards."""
    shards, store = task.missing[rank :: len(devices)], task.store
    if not shards:
        return
    batches = [batch for shard in shards for batch in store.batches(shard, BATCH)]
    features: Any = iterate_features(
        task.encoder, task.paths, batches, size=task.size, device=devices[rank], num_workers=task.num_workers
    )
    if rank == 0 and sys.stderr.isatty():  # with several devices, of the first one's share
        features = track_iter_progress((features, len(batches)), file=sys.stderr)
    features = iter(features)
    for shard in shards:
        rows = [next(features) for _ in store.batches(shard, BATCH)]
        store.save(shard, torch.cat(rows).numpy())
