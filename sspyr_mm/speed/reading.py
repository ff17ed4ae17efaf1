"""Images from a folder of files, and from packed shards: what a loader makes of either."""

import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from sspyr_mm.datasets import StreamedImages
from sspyr_mm.datasets.streaming.shards import pack
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.pipelines import Ours, PipelineOutputs
from sspyr_mm.speed.timing import wall_ms

_SHARD_BYTES = 4 << 20
"""Small, so that even a handful of images fills several."""


def measure_reading(
    spec: PyramidSpec, paths: Sequence[str], *, num_workers: int, rounds: int
) -> dict[str, Any]:
    """Reads the same images from files and from shards, in turn, once to warm up.

    Both come from the memory of the operating system where they fit into it: it is the work of reading that is
    measured, not the disk.

    Args:
        spec: The pyramid.
        paths: Of the images.
        num_workers: Of the loaders, which outlive an epoch.
        rounds: Epochs of each.

    Returns:
        ``files_images_per_s`` and ``shards_images_per_s``, the latter None where litdata is not installed.
    """
    ours = Ours(spec)
    files = DataLoader(
        PipelineOutputs(ours, paths, len(paths)),
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    if importlib.util.find_spec("litdata") is None:
        ms = wall_ms({"files": partial(_drain, files)}, rounds=rounds, device=torch.device("cpu"))
        return {"files_images_per_s": 1e3 * len(paths) / ms["files"], "shards_images_per_s": None}
    with tempfile.TemporaryDirectory() as folder:
        packed = str(Path(folder) / "shards")
        pack(paths, packed, shard_bytes=_SHARD_BYTES)
        stream = StreamedImages(packed, pipeline=ours.steps)
        shards = DataLoader(
            stream,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )
        epochs = itertools.count()

        def read_shards() -> int:
            stream.start_epoch(next(epochs), seed=0, batch_size=1, num_workers=num_workers)
            return _drain(shards)

        count = read_shards()  # a worker's share is rounded down
        functions: dict[str, Callable[[], object]] = {
            "files": partial(_drain, files),
            "shards": read_shards,
        }
        ms = wall_ms(functions, rounds=rounds, device=torch.device("cpu"))
    return {
        "files_images_per_s": 1e3 * len(paths) / ms["files"],
        "shards_images_per_s": 1e3 * count / ms["shards"],
    }


def _drain(loader: DataLoader) -> int:
    return sum(1 for _ in loader)
