"""Writes a data set of scenes to a folder, in COCO and in VOCdevkit layout."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sspyr_mm.datasets.toy_scenes.kinds import CLASSES, KINDS
from sspyr_mm.datasets.toy_scenes.label_checks import (
    RECORD_NAME,
    check_whole,
    is_finished,
    parse_size,
)
from sspyr_mm.datasets.toy_scenes.scene import draw_scene
from sspyr_mm.datasets.toy_scenes.writers import (
    coco_annotations,
    coco_categories,
    voc_xml,
    write_palette_png,
)
from sspyr_mm.machine import num_cores

#: Raised whenever the same parameters would give other files than before.
GENERATOR_VERSION = 1

_JPEG_QUALITY = 90
# Image ids of val start here whatever the size of train: a val image keeps its name when train grows.
_VAL_OFFSET = 500_000
_SPLITS = ("train", "val")


def _draw_one(
    index: int, *, root: str, split: str, seed: int, size: tuple[int, int]
) -> dict[str, Any]:
    """Draws and writes one image; all its randomness comes from (seed, split, index)."""
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    scene = draw_scene(rng, size)
    image_id = index + 1 + (_VAL_OFFSET if split == "val" else 0)
    kind = KINDS[scene.kind].name
    coco_name, voc_stem = f"{image_id:012d}.jpg", f"{image_id:06d}"
    folder = Path(root)
    ok, data = cv2.imencode(
        ".jpg", scene.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    assert ok
    coco_file = folder / f"{split}2017" / coco_name
    coco_file.write_bytes(data.tobytes())
    voc = folder / "VOC2007"
    voc_file = voc / "JPEGImages" / f"{voc_stem}.jpg"
    try:
        os.link(coco_file, voc_file)
    except OSError:  # a file system without hard links
        shutil.copyfile(coco_file, voc_file)
    xml = voc_xml(scene.objects, voc_file.name, size, kind)
    (voc / "Annotations" / f"{voc_stem}.xml").write_text(xml, encoding="utf-8")
    write_palette_png(voc / "SegmentationClass" / f"{voc_stem}.png", scene.class_mask)
    return {
        "image": {
            "id": image_id,
            "file_name": coco_name,
            "height": size[0],
            "width": size[1],
            "scene_kind": kind,
        },
        "annotations": coco_annotations(scene.objects, image_id),
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # of a spawned process, which starts with OpenCV's default
    # Terminals send Ctrl-C to all processes: the main one hears it, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_all(draw: partial[dict[str, Any]], count: int, workers: int) -> Iterator[dict[str, Any]]:
    """Yields the records in the order of their indices, whatever order the workers finish in."""
    # Around the workers, too: a fork copies OpenCV's thread pool without its threads, and waits for them for ever.
    with _one_thread():
        if workers <= 1 or count < 2:
            yield from map(draw, range(count))
            return
        # As torch's DataLoader: forked workers start at once and import nothing again.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        with context.Pool(min(workers, count), initializer=_start_worker) as pool:
            yield from pool.imap(draw, range(count), chunksize=max(1, min(32, count // workers)))


def _write_split(root: Path, split: str, records: list[dict[str, Any]]) -> int:
    """Writes a split's COCO json and VOC image sets; returns the number of annotations."""
    annotations = [item for record in records for item in record["annotations"]]
    coco = {
        "info": {"description": "toy scenes", "version": str(GENERATOR_VERSION)},
        "licenses": [],
        "images": [record["image"] for record in records],
        "annotations": [{"id": number, **item} for number, item in enumerate(annotations, start=1)],
        "categories": coco_categories(),
    }
    path = root / "annotations" / f"instances_{split}2017.json"
    path.write_text(json.dumps(coco, separators=(",", ":")), encoding="utf-8")
    stems = "".join(f"{record['image']['id']:06d}\n" for record in records)
    # The usual protocols are train -> val and trainval -> test: neither may test on what it has trained on.
    for name in ("train", "trainval") if split == "train" else ("val", "test"):
        for purpose in ("Main", "Segmentation"):
            (root / "VOC2007" / "ImageSets" / purpose / f"{name}.txt").write_text(
                stems, encoding="utf-8"
            )
    names = "".join(f"{category['name']}\n" for category in coco_categories())
    (root / "VOC2007/ImageSets/Segmentation/class_names.txt").write_text(names, encoding="utf-8")
    return len(annotations)


def _readme(parameters: dict[str, Any], counts: dict[str, int]) -> str:
    size = f"{parameters['height']}x{parameters['width']}"
    lines = [
        "Toy scenes: drawn multi-object pictures with labels, made by sspyr_mm.",
        "",
        f"Command: python -m sspyr_mm toy-scenes DIR --num-train {parameters['num_train']} "
        f"--num-val {parameters['num_val']} --size {size} --seed {parameters['seed']}",
        f"Generator version: {parameters['version']}",
        *(
            f"{split}: {parameters[f'num_{split}']} images, {counts[split]} objects"
            for split in _SPLITS
        ),
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
    """Draws a data set into a folder.

    The folder appears when it is complete: it is written under a hidden name next to it and renamed. The files
    depend on ``num_train``, ``num_val``, ``size`` and ``seed`` alone, not on ``workers``.

    Args:
        root (str | Path): the folder; absent, empty, or finished from the same parameters.
        num_train (int): training images. Default 4000.
        num_val (int): held-out images. Default 1000.
        size (int | str | tuple[int, int]): a side in pixels, "HxW" or (height, width). Default 128.
        seed (int): at least 0. Default 0.
        workers (int): processes; 0 takes one per available core. Default 0.
        progress (bool): whether to show a counter on stderr. Default False.

    Returns:
        bool: True if it was drawn, False if it was there already.

    Raises:
        ValueError: if a parameter is out of range.
        FileExistsError: if the folder holds anything else.
    """
    limit = _VAL_OFFSET - 1
    height, width = parse_size(size)
    check_whole(
        "num_train", num_train, 1, limit, "a few thousand are enough to pre-train a small backbone"
    )
    check_whole("num_val", num_val, 1, limit, "a thousand are enough for a probe")
    check_whole("seed", seed, 0, 2**32 - 1, "any such number will do")
    check_whole("workers", workers, 0, 1024, "0 takes one process per core")
    workers = workers or num_cores()
    parameters: dict[str, Any] = {
        "made_by": "sspyr_mm toy-scenes",
        "version": GENERATOR_VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "height": height,
        "width": width,
        "seed": seed,
    }
    root = Path(root).absolute()
    if is_finished(root, parameters):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    part = root.with_name(f".{root.name}.unfinished-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for folder in (
            "train2017", "val2017", "annotations", "VOC2007/JPEGImages", "VOC2007/Annotations",
            "VOC2007/SegmentationClass", "VOC2007/ImageSets/Main", "VOC2007/ImageSets/Segmentation",
        ):  # fmt: skip
            (part / folder).mkdir(parents=True)
        counts = {}
        for split in _SPLITS:
            total = parameters[f"num_{split}"]
            draw = partial(_draw_one, root=str(part), split=split, seed=seed, size=(height, width))
            records = []
            for record in _draw_all(draw, total, workers):
                records.append(record)
                if progress and (len(records) % 100 == 0 or len(records) == total):
                    print(f"\r{split}: {len(records)}/{total}", end="", file=sys.stderr, flush=True)
            if progress:
                print(file=sys.stderr)
            counts[split] = _write_split(part, split, records)
        (part / "README.txt").write_text(_readme(parameters, counts), encoding="utf-8")
        (part / RECORD_NAME).write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")
        try:
            os.rename(part, root)
        except OSError:
            # Another run may have finished the same folder meanwhile; anything else is an error of its own.
            if not is_finished(root, parameters):
                raise
            return False
        return True
    finally:
        shutil.rmtree(part, ignore_errors=True)
