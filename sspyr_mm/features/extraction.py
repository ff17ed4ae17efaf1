"""Features of the centre crops of images from a frozen backbone, cached in shards of a few hundred images.

A shard appears when it is complete: a killed run resumes at its first missing shard, and concurrent runs at worst
repeat work. It is an ``npy`` file followed by the SHA-256 of its bytes, in one file: concurrent runs could mix two.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import sspyr_mm.datasets  # noqa: F401  # registers the transforms
from sspyr_mm import __version__
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError
from sspyr_mm.datasets.workers import answer_to_parent_only
from sspyr_mm.files import remove_left_over, shortened, whole_file, write_json
from sspyr_mm.machine import with_progress
from sspyr_mm.models.layers import last_output, pool, pool_cells

BATCH = 64  # images per forward pass
SHARD = 512  # images per file of the cache
_DIGEST = hashlib.sha256().digest_size


class FrozenEncoder(nn.Module):
    """A backbone that stays in evaluation mode, with the normalisation it was trained with.

    Args:
        backbone: Any mmpretrain backbone.
        mean: Mean of each RGB channel, in 0-255.
        std: Standard deviation of each RGB channel, in 0-255.
        identity: Key of stored features, such as the hash of its checkpoint.
        decoding: Options of ``LoadRGBImage`` it was trained with.
        grid: Side of a grid of cells, whose features follow those of the image; 0 for none.
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
        grid: int = 0,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.backbone = backbone
        self.identity = identity
        self.decoding = dict(decoding or {})
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Ignores the mode."""
        return super().train(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Returns the last stage averaged over space or tokens, float32, of (N, 3, H, W) uint8 RGB images.

        The result is (N, C), or (N, (1 + grid * grid) * C) with cells, row by row from the top left. Raises ValueError
        if cells are wanted of a backbone without maps, or more cells than its last map has.
        """
        feats = self.backbone((images.float() - self.mean) / self.std)
        if not self.grid:
            return pool(feats).float()
        maps = last_output(feats)
        if maps.ndim != 4:
            raise ValueError(
                f"Cells need a backbone that returns maps (N, C, H, W), {type(self.backbone).__name__} returns "
                f"{tuple(maps.shape)}: omit --grid"
            )
        if (side := min(maps.shape[2:])) < self.grid:
            pixels = images.shape[-1]
            raise ValueError(
                f"A grid of {self.grid} x {self.grid} cells needs as large a last map, and that of {pixels} pixels is "
                f"{side} x {side}: use --grid {side}, or --size {self.grid * pixels // side}"
            )
        return torch.cat([pool(feats).float(), pool_cells(maps, self.grid).flatten(1)], dim=1)


def centre_crop_pipeline(size: int, decoding: Mapping[str, Any] | None = None) -> list[dict]:
    """Returns the test transforms, from ``img_path`` to ``img`` (size, size, 3) uint8 RGB.

    The shorter side is resized to ``size * 256 / 224`` pixels before the centre crop.
    """
    return [
        dict(type="LoadRGBImage", skip_broken=False, **(decoding or {})),
        dict(
            type="ResizeEdge",
            scale=round(size * 256 / 224),
            edge="short",
            backend="pillow",  # antialiased, like torchvision's Resize
            interpolation="bilinear",
        ),
        dict(type="CenterCrop", crop_size=size),
    ]


class CentreCrops(Dataset):
    """Centre crops of image files, (3, size, size) uint8 RGB."""

    def __init__(self, paths: Sequence[str], size: int, decoding: Mapping[str, Any] | None = None) -> None:
        init_default_scope("mmpretrain")
        self.paths = list(paths)
        self.pipeline = Compose(centre_crop_pipeline(size, decoding))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        image = self.pipeline({"img_path": self.paths[index]})["img"]
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def _chunks(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _iterate_features(
    encoder: FrozenEncoder, paths: Sequence[str], size: int, num_workers: int, batches: list[range], device: str
) -> Iterator[Tensor]:
    """Yields the features of each batch of indices, (B, C) float32 on the CPU."""
    loader = DataLoader(
        CentreCrops(paths, size, encoder.decoding),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=num_workers,
        worker_init_fn=answer_to_parent_only,
    )
    encoder = encoder.to(device)
    for images in loader:
        yield encoder(images.to(device)).cpu()


def extract_features(
    encoder: FrozenEncoder, paths: Sequence[str], *, size: int, device: str = "cpu", num_workers: int = 0
) -> Tensor:
    """Computes the features of N image files, (N, C) float32 on the CPU, from centre crops of ``size`` pixels.

    Raises UnreadableImageError if a file cannot be read as an image.
    """
    batches = _chunks(range(len(paths)), BATCH)
    return torch.cat(list(_iterate_features(encoder, paths, size, num_workers, batches, device)))


@dataclass(frozen=True)
class Shard:
    """Features of consecutive images, (rows, C) float32, in one file."""

    file: Path
    rows: range

    def save(self, features: NDArray) -> None:
        """Writes the features."""
        buffer = io.BytesIO()
        np.save(buffer, features)
        content = buffer.getvalue()
        with whole_file(self.file) as path:
            path.write_bytes(content + hashlib.sha256(content).digest())

    def read(self) -> NDArray | None:
        """Returns the features; None if the file is missing or damaged."""
        try:
            data = self.file.read_bytes()
            content = data[:-_DIGEST]
            if hashlib.sha256(content).digest() != data[-_DIGEST:]:
                raise ValueError("its checksum differs")
            features = np.load(io.BytesIO(content))
            if features.ndim != 2 or len(features) != len(self.rows) or features.dtype != np.float32:
                raise ValueError(f"{features.dtype} of shape {features.shape}, not float32 of {len(self.rows)} rows")
            return features
        except FileNotFoundError:
            return None
        except Exception as error:  # np.load raises arbitrary exceptions on damaged files
            print(f"{self.file} is damaged ({error}): extracted again", file=sys.stderr)
            return None


def file_states(paths: Sequence[str]) -> bytes:
    """Returns a hash of path, size and modification time of files; raises FileNotFoundError if one is missing."""
    states = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        line = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        states.update(os.fsencode(line))
    return states.digest()


class FeatureCache:
    """Shards of the features of N image files, in a folder per encoder and transforms.

    The name of a shard covers path, size and modification time of its files. Several devices compute in one process
    each; ``num_workers`` processes per device decode.
    """

    def __init__(
        self,
        encoder: FrozenEncoder,
        paths: Sequence[str],
        *,
        size: int,
        cache_dir: str | os.PathLike,
        devices: Sequence[str] = ("cpu",),
        num_workers: int = 2,
    ) -> None:
        description = {
            "encoder": encoder.identity,
            "version": __version__,
            "mean": encoder.mean.flatten().tolist(),
            "std": encoder.std.flatten().tolist(),
            "pipeline": centre_crop_pipeline(size, encoder.decoding),
            "grid": encoder.grid,
        }
        key = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        self.folder = Path(cache_dir) / key.hexdigest()[:32]
        write_json(self.folder / "about.json", description)
        parts = _chunks(range(len(paths)), SHARD)
        names = [f"{i:06}_{file_states(paths[r.start : r.stop]).hex()[:32]}.npy" for i, r in enumerate(parts)]
        self.shards = [Shard(self.folder / name, rows) for name, rows in zip(names, parts, strict=True)]
        self._extract = partial(_iterate_features, encoder.cpu(), paths, size, num_workers)
        self._devices = devices

    def compute(self, missing: Sequence[Shard]) -> None:
        """Extracts shards; raises ValueError at the end if images can't be decoded, and keeps the other shards."""
        if missing:
            devices = self._devices[: len(missing)]
            _run_processes(partial(_extract_share, self._extract, missing, devices), len(devices))
        remove_left_over(self.folder)


def cached_features(encoder: FrozenEncoder, paths: Sequence[str], **settings: Any) -> Tensor:
    """Reads the features of N image files from a cache, (N, C) float32 on the CPU, and computes missing ones.

    ``settings`` are the arguments of :class:`FeatureCache`. Raises ValueError if an image can't be decoded, OSError if
    one is missing or features can't be read back after writing.
    """
    cache = FeatureCache(encoder, paths, **settings)
    features = {shard: shard.read() for shard in cache.shards}
    missing = [shard for shard in cache.shards if features[shard] is None]
    cache.compute(missing)
    features |= {shard: shard.read() for shard in missing}
    check_read([shard for shard in cache.shards if features[shard] is None])
    return torch.cat([torch.from_numpy(features[shard]) for shard in cache.shards])


def check_read(lost: Sequence[Shard]) -> None:
    """Raises OSError if there are shards that could not be read back."""
    if files := shortened(shard.file for shard in lost):
        raise OSError(f"{files} can't be read back just after writing: check the disk, or keep them on another one")


def _run_processes(function: Callable[[int], None], count: int) -> None:
    """Calls a function with the rank of each process; a single one is this process."""
    if count == 1:
        function(0)
        return
    try:
        torch.multiprocessing.spawn(function, nprocs=count)
    except torch.multiprocessing.ProcessRaisedException as error:  # contains a traceback; its last line is the message
        raise ValueError(str(error).strip().splitlines()[-1]) from error


def _extract_share(
    extract: Callable[[list[range], str], Any], shards: Sequence[Shard], devices: Sequence[str], rank: int
) -> None:
    """Writes every ``len(devices)``-th of the shards."""
    missing, broken = list(shards[rank :: len(devices)]), []
    while missing:
        batches = [batch for shard in missing for batch in _chunks(shard.rows, BATCH)]
        features = extract(batches, devices[rank])
        # with several devices, the progress of the first one
        features = with_progress(features, len(batches)) if rank == 0 else iter(features)
        try:
            while missing:
                shard = missing.pop(0)
                shard.save(torch.cat([next(features) for _ in _chunks(shard.rows, BATCH)]).numpy())
        except UnreadableImageError as error:
            broken.append(error.summary)
    if broken:
        raise UnreadableImageError("; ".join(broken))
