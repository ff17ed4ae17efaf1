"""Generation of a folder of scenes in the layouts of COCO and VOCdevkit."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sspyr_mm.datasets.toy_scenes.objects import CLASSES
from sspyr_mm.datasets.toy_scenes.scene import KINDS, draw_scene, parse_size
from sspyr_mm.datasets.toy_scenes.writers import make_folders, write_lists, write_scene
from sspyr_mm.machine import num_cores

#: Incremented when the same parameters produce different images or labels.
GENERATOR_VERSION = 1
#: Name of the file with the parameters of the data set, written to a finished folder.
RECORD_NAME = "toy_scenes.json"

# Image ids of val start here for any size of train, so that a val image keeps its name when train grows.
_VAL_OFFSET = 500_000
_SPLITS = ("train", "val")


def generate(
    root: str | Path,
    *,
    num_train: int = 4000,
    num_val: int = 1000,
    size: int | str | tuple[int, int] = 128,
    seed: int = 0,
    workers: int = 0,
    progress: bool = False,
) -> bool:
    """Generates a data set in a folder.

    The folder appears when it is complete: it is written under a hidden name next to it and renamed. The files depend
    only on ``num_train``, ``num_val``, ``size`` and ``seed``, not on ``workers``.

    Args:
        root: Target folder; absent, empty, or finished with the same parameters.
        num_train: Number of training images.
        num_val: Number of validation images.
        size: Image size: side in pixels, "HxW" or (height, width).
        seed: Random seed, at least 0.
        workers: Number of processes; 0 for one per available core.
        progress: Whether to show a counter on stderr.

    Returns:
        True if the data set was generated, False if it existed.

    Raises:
        ValueError: If a parameter is out of range.
        FileExistsError: If the folder contains anything else.
    """
    parameters = _check_parameters(num_train, num_val, size, seed, workers)
    root = Path(root).absolute()
    if _is_finished(root, parameters):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    part = root.with_name(f".{root.name}.unfinished-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    threads = cv2.getNumThreads()
    # A forked worker would wait forever for the threads of OpenCV's pool, which a fork does not copy.
    cv2.setNumThreads(1)
    try:
        _write_all(part, parameters, workers or num_cores(), progress)
        try:
            os.rename(part, root)
        except OSError:
            # Another run may have finished the same folder in the meantime; everything else is an error.
            if not _is_finished(root, parameters):
                raise
            return False
        return True
    finally:
        cv2.setNumThreads(threads)
        shutil.rmtree(part, ignore_errors=True)


def _write_all(root: Path, parameters: dict[str, Any], workers: int, progress: bool) -> None:
    make_folders(root)
    counts = {}
    for split in _SPLITS:
        total = parameters[f"num_{split}"]
        size = parameters["height"], parameters["width"]
        draw = partial(_draw_one, root=root, split=split, seed=parameters["seed"], size=size)
        records = []
        for record in _draw_all(draw, total, workers):
            records.append(record)
            if progress and (len(records) % 100 == 0 or len(records) == total):
                print(f"\r{split}: {len(records)}/{total}", end="", file=sys.stderr, flush=True)
        if progress:
            print(file=sys.stderr)
        counts[split] = write_lists(root, split, records, GENERATOR_VERSION)
    (root / "README.txt").write_text(_readme(parameters, counts), encoding="utf-8")
    (root / RECORD_NAME).write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")


def _draw_all(draw: partial[dict[str, Any]], count: int, workers: int) -> Iterator[dict[str, Any]]:
    """Yields the records in the order of their indices, however many workers draw them."""
    if workers <= 1 or count < 2:
        yield from map(draw, range(count))
        return
    # As in torch's DataLoader: forked workers start immediately, without importing again.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with context.Pool(min(workers, count), initializer=_start_worker) as pool:
        yield from pool.imap(draw, range(count), chunksize=max(1, min(32, count // workers)))


def _start_worker() -> None:
    cv2.setNumThreads(1)  # a spawned process starts with OpenCV's default
    # Terminals send Ctrl-C to all processes; the main process handles it and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The pool ends its workers by SIGTERM. A handler in Python, inherited from the main process, would not run in one
    # that has just begun to wait for a lock.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _draw_one(index: int, *, root: Path, split: str, seed: int, size: tuple[int, int]) -> dict[str, Any]:
    """Draws and writes one image, which depends only on (seed, split, index) and the size."""
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    image_id = index + 1 + (_VAL_OFFSET if split == "val" else 0)
    return write_scene(root, split, image_id, draw_scene(rng, size))


def _readme(parameters: dict[str, Any], counts: dict[str, int]) -> str:
    size = f"{parameters['height']}x{parameters['width']}"
    lines = [
        "Toy scenes: drawn multi-object images with labels, made by sspyr_mm.",
        "",
        f"Command: python -m sspyr_mm toy-scenes DIR --num-train {parameters['num_train']} "
        f"--num-val {parameters['num_val']} --size {size} --seed {parameters['seed']}",
        f"Generator version: {parameters['version']}",
        *(f"{split}: {parameters[f'num_{split}']} images, {counts[split]} objects" for split in _SPLITS),
        f"Classes: {', '.join(CLASSES)}",
        f"Kinds of scenes: {', '.join(kind.name for kind in KINDS)}",
        "",
        "COCO layout: train2017, val2017, annotations. Boxes, areas and polygons are those of the visible part.",
        "VOC layout: VOC2007 (use this folder as VOCdevkit). Image sets: trainval is train and test is val, so that",
        "trainval -> test and train -> val are the same protocol. Masks: 0 background, 1.. the classes in the order",
        "above, 255 objects of which too little is visible to be annotated.",
        "The JPEG files of the two layouts are hard links of each other where the file system has them.",
    ]
    return "\n".join(lines) + "\n"


def _check_parameters(
    num_train: int, num_val: int, size: int | str | tuple[int, int], seed: int, workers: int
) -> dict[str, Any]:
    """Checks the parameters; returns those that the files depend on, as recorded in the folder."""
    height, width = parse_size(size)
    for name, value, low, high, remedy in (
        ("num_train", num_train, 1, _VAL_OFFSET - 1, "a few thousand are enough to pre-train a small backbone"),
        ("num_val", num_val, 1, _VAL_OFFSET - 1, "a thousand are enough for a probe"),
        ("seed", seed, 0, 2**32 - 1, "any number in this range works"),
        ("workers", workers, 0, 1024, "0 uses one process per core"),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}: {remedy}")
    return {
        "made_by": "sspyr_mm toy-scenes",
        "version": GENERATOR_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "height": height,
        "width": width,
        "seed": seed,
    }


def _is_finished(root: Path, parameters: dict[str, Any]) -> bool:
    """Returns whether the folder contains the data set; raises FileExistsError for any other content."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(
            f"{root} exists and does not contain toy scenes (no readable {RECORD_NAME}): give another folder, "
            "or move this one away"
        ) from None
    found = found if isinstance(found, dict) else {}
    differ = [f"{k} {found.get(k)} instead of {v}" for k, v in sorted(parameters.items()) if found.get(k) != v]
    if not differ:
        return True
    raise FileExistsError(
        f"{root} contains toy scenes with other parameters ({', '.join(differ)}): give another folder, "
        "or delete this one first"
    )
