"""Features of the centre crops of a set of images, extracted once and kept on disk.

A folder per (encoder, images, transform) holds shards of a few hundred images. A shard appears only when it is whole:
a run that is killed goes on with the first missing one, and runs side by side at worst do the same work twice.
It is an ``npy`` file with the SHA-256 of its bytes behind them: in one file, as two of parallel runs could be mixed.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.utils import track_iter_progress
from torch import Tensor

from sspyr_mm import __version__
from sspyr_mm.benchmarks.classification.encoder import FrozenEncoder
from sspyr_mm.benchmarks.classification.features import BATCH, centre_crop_pipeline, crop_loader
from sspyr_mm.files import remove_left_over, shortened, whole_file

SHARD = 512
"""Images a file holds."""
_DIGEST = hashlib.sha256().digest_size


def cached_features(
    encoder: FrozenEncoder,
    paths: Sequence[str],
    *,
    size: int,
    cache_dir: str | os.PathLike,
    devices: Sequence[str] = ("cpu",),
    num_workers: int = 2,
) -> Tensor:
    """Features of images, from disk where they are there already.

    The key covers the encoder, the transform, and path, size and time of change of every file: an image or checkpoint
    that changes has other features.

    Args:
        encoder: Frozen network.
        paths: N files.
        size: Side of the centre crop in pixels.
        cache_dir: Where folders of features go; one each, named by key.
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
    folder = Path(cache_dir) / key
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "about.json", json.dumps(description, indent=1).encode())
    shards = [_read(folder, shard, len(paths)) for shard in range(-(-len(paths) // SHARD))]
    missing = [shard for shard, features in enumerate(shards) if features is None]
    arguments = (devices, encoder.cpu(), list(paths), size, folder, missing, num_workers)
    if len(devices) > 1 and len(missing) > 1:
        try:
            torch.multiprocessing.spawn(_extract_share, arguments, nprocs=len(devices))
        except torch.multiprocessing.ProcessRaisedException as error:
            # The process's own message is the last line of its trace.
            raise ValueError(str(error).strip().splitlines()[-1]) from error
    else:
        _extract_share(0, devices[:1], *arguments[1:])
    remove_left_over(folder)
    for shard in missing:
        shards[shard] = _read(folder, shard, len(paths))
    if lost := [
        str(_shard_file(folder, i)) for i, features in enumerate(shards) if features is None
    ]:
        raise OSError(
            f"{shortened(lost)} can't be read back just after writing: check the disk, or keep the features on another "
            "one"
        )
    return torch.cat([torch.from_numpy(features) for features in shards])


def file_states(paths: Sequence[str]) -> bytes:
    """Hash of path, size and time of change of files; another one if any of them changes.

    Args:
        paths: Files.

    Raises:
        FileNotFoundError: If one is missing.
    """
    states = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        line = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        states.update(os.fsencode(line))
    return states.digest()


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


def _shard_file(folder: Path, shard: int) -> Path:
    return folder / f"{shard:06}.npy"


def _extract_share(
    rank: int,
    devices: Sequence[str],
    encoder: FrozenEncoder,
    paths: list[str],
    size: int,
    folder: Path,
    missing: list[int],
    num_workers: int,
) -> None:
    """Extracts every ``len(devices)``-th of the missing shards."""
    shards = missing[rank :: len(devices)]
    if not shards:
        return
    batches = [batch for shard in shards for batch in _batches(shard, len(paths))]
    loader: Any = crop_loader(encoder, paths, batches, size=size, num_workers=num_workers)
    encoder = encoder.to(devices[rank])
    if rank == 0 and sys.stderr.isatty():  # with several devices, of the first one's share
        loader = track_iter_progress((loader, len(batches)), file=sys.stderr)
    features = (encoder(images.to(devices[rank])).cpu() for images in loader)
    for shard in shards:
        rows = [next(features) for _ in _batches(shard, len(paths))]
        _save(_shard_file(folder, shard), torch.cat(rows).numpy())


def _rows(shard: int, num_images: int) -> range:
    """Images of a shard."""
    return range(shard * SHARD, min((shard + 1) * SHARD, num_images))


def _batches(shard: int, num_images: int) -> Iterator[list[int]]:
    rows = _rows(shard, num_images)
    for start in range(0, len(rows), BATCH):
        yield list(rows[start : start + BATCH])


def _save(target: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    _write(target, content + hashlib.sha256(content).digest())


def _write(target: Path, data: bytes) -> None:
    with whole_file(target) as partial:
        partial.write_bytes(data)


def _read(folder: Path, shard: int, num_images: int) -> np.ndarray | None:
    """A shard (rows, C) float32; None if it is not there, or damaged, and to be extracted again."""
    path = _shard_file(folder, shard)
    try:
        return _checked(path.read_bytes(), len(_rows(shard, num_images)))
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is in the file, or wrong with it
        print(f"{path} is damaged ({error}): extracted again", file=sys.stderr)
        return None


def _checked(data: bytes, num_rows: int) -> np.ndarray:
    content = memoryview(data)[:-_DIGEST]
    if hashlib.sha256(content).digest() != data[-_DIGEST:]:
        raise ValueError("its bytes are not those that were written")
    features = np.load(io.BytesIO(content))
    if features.ndim != 2 or len(features) != num_rows or features.dtype != np.float32:
        raise ValueError(
            f"{features.dtype} of shape {features.shape}, not float32 of {num_rows} rows"
        )
    return features
