"""Packing a folder of images into shards that can be streamed."""

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
    http_allowed,
    import_litdata,
    litdata_settings,
)
from sspyr_mm.datasets.transforms.decode_problems import describe_problem
from sspyr_mm.datasets.transforms.decoding import decode_rgb
from sspyr_mm.datasets.transforms.loading import read_file
from sspyr_mm.datasets.transforms.pixel_values import DecodeOptions
from sspyr_mm.files import printable
from sspyr_mm.machine import num_cores

INDEX = "index.json"
"""Written when all shards are there: a folder without it is no data set."""
_WRITABLE = ("s3://", "gs://", "r2://")
"""Object stores that litdata writes to; it reads from others, too."""
_STORE_REMEDY = "check that the store's keys may write and that it has room, remove what is there, and pack again"


def is_url(path: str) -> bool:
    """Whether shards are fetched from there before they are read: an object store, or ``local:`` and a slow folder."""
    return "://" in path or path.startswith("local:")


def is_packed(path: str) -> bool:
    """Whether ``path`` holds shards: a URL, or a folder with their index.

    Args:
        path: A folder or URL.
    """
    return is_url(path) or ((Path(path) / INDEX).is_file() and any(Path(path).glob("chunk-*.bin")))


class _Packer:
    """Reads one image of a list; what can't be decoded is left out and written down."""

    def __init__(self, paths: Sequence[str], left_out: Path) -> None:
        self.paths = [os.path.abspath(path) for path in paths]
        self.root = os.path.commonpath([os.path.dirname(path) for path in self.paths])
        self.left_out = left_out

    def __call__(self, index: int) -> Iterator[dict[str, Any]]:
        cv2.setNumThreads(0)  # its pool of threads does not survive a fork
        path = self.paths[index]
        options = DecodeOptions()
        problem = None
        try:
            data = read_file(path)
            # An eighth of the size needs the whole file read all the same.
            if decode_rgb(data, reduction=8, options=options) is None:
                problem = describe_problem(data, options)
        except OSError as error:
            data, problem = b"", error.strerror or str(error)
        if problem is not None:
            with open(self.left_out, "a", encoding="utf-8") as file:  # one short line: not torn
                file.write(f"{printable(path)}: {problem}\n")
            return
        name = printable(os.path.relpath(path, self.root))
        yield {"index": index, "name": name, "image": data}


def pack(
    paths: Sequence[str],
    out: str,
    *,
    shard_bytes: int,
    num_workers: int = 0,
    seed: int = 0,
    storage_options: dict | None = None,
) -> list[str]:
    """Packs image files as they are, in an order mixed once, for images of a shard are seen near to each other.

    Args:
        paths: Of the images.
        out: Folder that does not exist yet or is empty, or a URL without data set; it appears when it is whole.
        shard_bytes: Size of a shard, in bytes.
        num_workers: Processes; 0: one per core.
        seed: Of the order; with several processes it depends on their pace as well, as whoever is free takes the next
            image. (litdata's fixed shares would wait for ever for a process that was killed.)
        storage_options: Of an object store.

    Returns:
        What was left out: a line with path and problem for each image that can't be decoded.

    Raises:
        FileExistsError: If ``out`` is not empty.
        ValueError: If none of the images can be decoded.
        RuntimeError: If a process ended early.
    """
    options = storage_options or {}
    litdata = import_litdata()
    if is_url(out) and not out.startswith(_WRITABLE):
        raise ValueError(
            f"OUT can't be {out}: shards are written to a folder or to {', '.join(_WRITABLE)}; pack into a folder and "
            "copy that with the store's own tool"
        )
    paths = list(paths)
    random.Random(seed).shuffle(paths)
    with http_allowed(options), _target(out) as (target, scratch), litdata_settings(scratch):
        left_out = Path(scratch) / "left_out.txt"
        start_methods = multiprocessing.get_all_start_methods()
        with _told_of_store(target):
            litdata.optimize(
                _Packer(paths, left_out),
                list(range(len(paths))),
                output_dir=target,
                chunk_bytes=shard_bytes,
                num_workers=min(num_workers or num_cores(), len(paths)),
                reorder_files=False,
                start_method="fork" if "fork" in start_methods else "spawn",
                storage_options=options,
                verbose=False,
            )
        lines = left_out.read_text(encoding="utf-8").splitlines() if left_out.exists() else []
        if len(lines) == len(paths):
            raise ValueError(f"None of {len(paths)} images can be decoded, e.g. {lines[0]}")
        with _told_of_store(target):
            shards = _read_shards(target, Path(scratch), options)
        packed = sum(shard["chunk_size"] for shard in shards)
        if packed + len(lines) != len(paths):  # litdata says nothing of a worker that was killed
            raise RuntimeError(
                f"Only {packed} of {len(paths)} images were packed: a process ended early, perhaps for want of memory; "
                "pack again, with fewer --num-workers"
            )
        if is_url(target):
            _check_uploaded(target, [shard["filename"] for shard in shards], options)
    return lines


@contextmanager
def _told_of_store(target: str) -> Iterator[None]:
    """What a store answers to what it will not do, as one error: each has classes of its own."""
    try:
        yield
    except (OSError, RuntimeError, ValueError):
        raise
    except Exception as error:
        if not is_url(target):
            raise
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise RuntimeError(f"{target}: {problem}: {_STORE_REMEDY}") from error


def _read_shards(target: str, scratch: Path, storage_options: dict) -> list[dict[str, Any]]:
    """The index: of every shard ``filename`` and, as ``chunk_size``, how many images it holds."""
    index = Path(target) / INDEX
    if is_url(target):
        index = scratch / INDEX
        _store(target, storage_options).download_file(f"{target.rstrip('/')}/{INDEX}", str(index))
    return json.loads(index.read_text())["chunks"]


def _store(url: str, storage_options: dict) -> Any:
    from litdata.streaming.fs_provider import _get_fs_provider

    return _get_fs_provider(url, storage_options)


def _check_uploaded(url: str, shards: Sequence[str], storage_options: dict) -> None:
    """Looks for every shard of the index: litdata only logs that an upload failed."""
    store = _store(url, storage_options)
    missing = [name for name in shards if not store.exists(f"{url.rstrip('/')}/{name}")]
    if missing:
        raise RuntimeError(
            f"{len(missing)} of {len(shards)} shards did not arrive at {url}, e.g. {missing[0]} (see above): "
            f"{_STORE_REMEDY}"
        )


@contextmanager
def _target(out: str) -> Iterator[tuple[str, str]]:
    """Where to write, and a folder for what is on its way; a local ``out`` appears at the end of the block."""
    if is_url(out):
        with tempfile.TemporaryDirectory(prefix="pack-") as scratch:
            yield out, scratch
        return
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already: remove it, or give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it: shards are then moved, not copied.
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent) as scratch:
        partial = Path(scratch) / "shards"
        yield str(partial), scratch
        if folder.exists():
            folder.rmdir()
        shutil.move(partial, folder)
