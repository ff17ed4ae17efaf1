"""Packing of images into shards for streaming."""

import json
import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

from sspyr_mm.datasets.streaming.litdata_patches import (
    add_checksums,
    http_allowed,
    import_litdata,
    litdata_settings,
)
from sspyr_mm.datasets.transforms.decoding import decode_rgb, describe_problem
from sspyr_mm.datasets.transforms.loading import MAX_BYTES
from sspyr_mm.datasets.transforms.pixel_values import DecodeOptions
from sspyr_mm.files import printable, read_regular
from sspyr_mm.machine import num_cores

INDEX = "index.json"
"""Name of the index, written after all shards: a folder without it is not a complete data set."""
_WRITABLE = ("s3://", "gs://", "r2://")
"""Object stores that litdata can write to; it can read from others as well."""
_STORE_REMEDY = "check that the store's keys allow writing and that it has space, remove the partial data, pack again"


def is_url(path: str) -> bool:
    """Returns whether shards are fetched before reading: from an object store, or a slow folder (``local:``)."""
    return "://" in path or path.startswith("local:")


def is_packed(path: str) -> bool:
    """Returns whether a path contains shards: it is a URL, or a folder with shards and their index."""
    # os.path.isfile, not Path.is_file, which raises PermissionError.
    return is_url(path) or (os.path.isfile(os.path.join(path, INDEX)) and any(Path(path).glob("chunk-*.bin")))


class _Packer:
    """Reads one image of a list; an image that cannot be decoded is reported in the file ``skipped``."""

    def __init__(self, paths: Sequence[str], skipped: Path) -> None:
        self.paths = [os.path.abspath(path) for path in paths]
        self.root = os.path.commonpath([os.path.dirname(path) for path in self.paths])
        self.skipped = skipped

    def __call__(self, index: int) -> Iterator[dict[str, Any]]:
        cv2.setNumThreads(0)  # its pool of threads does not survive a fork
        add_checksums()
        path = self.paths[index]
        options = DecodeOptions()
        problem = None
        try:
            data = read_regular(path, max_bytes=MAX_BYTES)
            # Decoding at an eighth of the size still reads the whole file.
            if decode_rgb(data, reduction=8, options=options) is None:
                problem = describe_problem(data, options)
        except OSError as error:
            data, problem = b"", error.strerror or str(error)
        if problem is not None:
            with open(self.skipped, "a", encoding="utf-8") as file:  # short appended lines do not interleave
                file.write(f"{printable(path)}: {problem}\n")
            return
        yield {"index": index, "name": printable(os.path.relpath(path, self.root)), "image": data}


def pack(
    paths: Sequence[str],
    out: str,
    *,
    shard_bytes: int,
    num_workers: int = 0,
    seed: int = 0,
    storage_options: dict | None = None,
) -> list[str]:
    """Packs image files unchanged, in shuffled order, because images of one shard are read close together.

    Args:
        paths: Paths of the images.
        out: New or empty folder, or a URL without a data set; a folder appears when it is complete.
        shard_bytes: Size of a shard, in bytes.
        num_workers: Number of processes; 0: one per core.
        seed: Seed of the order. With several processes the order also depends on their timing, because a free process
            takes the next image. (With litdata's static assignment, a killed process would block the others forever.)
        storage_options: Options of an object store.

    Returns:
        Lines with path and problem of the images that were skipped because they cannot be decoded.

    Raises:
        FileExistsError: If ``out`` is not empty.
        ValueError: If none of the images can be decoded.
        RuntimeError: If a process exited early or an upload failed.
    """
    options = storage_options or {}
    litdata = import_litdata()
    if is_url(out) and not out.startswith(_WRITABLE):
        raise ValueError(
            f"OUT must be a folder or start with {', '.join(_WRITABLE)}, got {out}: pack into a folder and copy it "
            "with the tool of the store"
        )
    paths = list(paths)
    random.Random(seed).shuffle(paths)
    with http_allowed(options), _target(out) as (target, scratch), litdata_settings(scratch), _store_errors(target):
        skipped = Path(scratch) / "skipped.txt"
        litdata.optimize(
            _Packer(paths, skipped),
            list(range(len(paths))),
            output_dir=target,
            chunk_bytes=shard_bytes,
            num_workers=min(num_workers or num_cores(), len(paths)),
            reorder_files=False,
            start_method="fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn",
            storage_options=options,
            verbose=False,
        )
        lines = skipped.read_text(encoding="utf-8").splitlines() if skipped.exists() else []
        if len(lines) == len(paths):
            raise ValueError(f"None of {len(paths)} images can be decoded, e.g. {lines[0]}")
        packed = _count_packed(target, Path(scratch), options)
        if packed + len(lines) != len(paths):  # litdata does not report a killed worker
            raise RuntimeError(
                f"Only {packed} of {len(paths)} images were packed: a process exited early, possibly out of memory; "
                "pack again with fewer --num-workers"
            )
    return lines


@contextmanager
def _store_errors(target: str) -> Iterator[None]:
    """Converts errors of an object store to RuntimeError: each store has its own exception classes."""
    try:
        yield
    except (OSError, RuntimeError, ValueError):
        raise
    except Exception as error:
        if not is_url(target):
            raise
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise RuntimeError(f"{target}: {problem}: {_STORE_REMEDY}") from error


def _count_packed(target: str, scratch: Path, storage_options: dict) -> int:
    """Returns the number of images in the index; raises RuntimeError if its shards are not in the store."""
    from litdata.streaming.fs_provider import _get_fs_provider

    store = _get_fs_provider(target, storage_options) if is_url(target) else None
    index = Path(target) / INDEX
    if store:
        index = scratch / INDEX
        store.download_file(f"{target.rstrip('/')}/{INDEX}", str(index))
    shards = json.loads(index.read_text())["chunks"]
    if store:  # litdata only logs failed uploads
        names = [shard["filename"] for shard in shards]
        missing = [name for name in names if not store.exists(f"{target.rstrip('/')}/{name}")]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {len(shards)} shards are missing at {target}, e.g. {missing[0]} (see errors "
                f"above): {_STORE_REMEDY}"
            )
    return sum(shard["chunk_size"] for shard in shards)


@contextmanager
def _target(out: str) -> Iterator[tuple[str, str]]:
    """Yields the target and a temporary folder; a local ``out`` appears at the end of the block."""
    if is_url(out):
        with tempfile.TemporaryDirectory(prefix="pack-") as scratch:
            yield out, scratch
        return
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists: remove it, or give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Next to the target, so that shards are moved and not copied.
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent) as scratch:
        partial = Path(scratch) / "shards"
        yield str(partial), scratch
        if folder.exists():
            folder.rmdir()
        shutil.move(partial, folder)
