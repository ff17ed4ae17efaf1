"""VOC with masks of classes, checked before anything is trained on it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from mmpretrain.datasets.categories import VOC2007_CATEGORIES
from PIL import Image

from sspyr_mm.benchmarks.data import warn_of_shared_files
from sspyr_mm.benchmarks.dense.data import (
    DenseData,
    DensePart,
    mask_files,
    read_ids,
    require_files,
)
from sspyr_mm.machine import num_cores

_LISTS = "ImageSets/Segmentation"
_VOID = 255
"""Pixels of a mask that count for nothing."""


def read_voc_masks(root: str) -> DenseData:
    """VOC with masks of classes: train_aug and val of 2012; of a tree of 2007 trainval and test.

    Which it is, is told by its lists: with ``aug.txt`` it is train_aug; with ``val.txt`` and no ``test.txt``, or in a
    folder called after 2012, it is 2012; else 2007. Other classes than VOC's are read from
    ``ImageSets/Segmentation/class_names.txt``, one a line, without background.

    Args:
        root: ``VOC2012`` or ``VOC2007``, or a folder above it.

    Raises:
        FileNotFoundError: If there is none, or lists, images or masks are missing.
        ValueError: If a list, a mask or the names of classes can't be used.
    """
    names = ("VOC2012", "VOCdevkit/VOC2012", "VOC2007", "VOCdevkit/VOC2007")
    found = [
        f
        for f in (root, *(f"{root}/{name}" for name in names))
        if Path(f, "SegmentationClass").is_dir()
    ]
    if not found:
        raise FileNotFoundError(
            f"No VOC tree with masks in {root} (looked for SegmentationClass/ in it and in {', '.join(names)}): "
            "tools/dataset_converters/prepare_voc12.py makes one"
        )
    tree = found[0].rstrip("/")
    name, train, test = _parts(tree)
    classes = _class_names(Path(tree, _LISTS, "class_names.txt"))
    data = DenseData(name, tree, classes, train, test)
    _check_masks(data)
    warn_of_shared_files(data, *(f"{tree}/{part.annotations[-1]}" for part in (train, test)))
    return data


def _parts(tree: str) -> tuple[str, DensePart, DensePart]:
    """What the tree is called, and both parts."""

    def has(name: str) -> bool:
        return Path(tree, _LISTS, f"{name}.txt").is_file()

    if has("aug"):
        masks = ("SegmentationClass", "SegmentationClassAug")
        return "voc12aug", _part(tree, ("train", "aug"), masks), _part(tree, ("val",))
    of_2012 = "2012" in Path(tree).resolve().name  # whose test list comes without masks
    if has("val") and (of_2012 or not has("test")):
        return "voc12", _part(tree, ("train",)), _part(tree, ("val",))
    return "voc07", _part(tree, ("trainval",)), _part(tree, ("test",))


def _part(
    tree: str, lists: Sequence[str], masks: Sequence[str] = ("SegmentationClass",)
) -> DensePart:
    files = tuple(f"{_LISTS}/{name}.txt" for name in lists)
    paths = [f"{tree}/JPEGImages/{one}.jpg" for file in files for one in read_ids(Path(tree, file))]
    part = DensePart(files, "JPEGImages", tuple(masks), require_files(paths, tree))
    require_files(mask_files(tree, part), tree)
    return part


def _class_names(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return tuple(VOC2007_CATEGORIES)
    names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not names or len(set(names)) < len(names) or "background" in names:
        raise ValueError(
            f"{file} must name each class once, one a line, without background; got {', '.join(names) or 'nothing'}"
        )
    return tuple(names)


def _check_masks(data: DenseData) -> None:
    """Refuses masks that training would stumble over, or an evaluator count wrong without a word."""
    files = [file for part in (data.train, data.test) for file in mask_files(data.root, part)]
    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        list(pool.map(partial(_check_mask, len(data.classes)), files))


def _check_mask(num_classes: int, file: str) -> None:
    """One mask: numbers of classes, 0 for the background, and void."""
    try:
        with Image.open(file) as opened:
            mask = np.asarray(opened)
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them trip over
        raise ValueError(
            f"{file} is no picture that can be read ({error}): mend or replace it"
        ) from error
    used = np.bincount(mask.ravel(), minlength=256) if mask.dtype == np.uint8 else np.zeros(0)
    wrong = np.flatnonzero(used[num_classes + 1 : _VOID])
    if mask.ndim != 2 or not used.size or wrong.size:
        came = f"class {num_classes + 1 + wrong[0]}" if wrong.size else f"{mask.dtype} {mask.shape}"
        raise ValueError(
            f"{file} has {came}: a mask is (height, width) of 8 bits, with 0 for the background, 1 to {num_classes} "
            f"for the classes and {_VOID} for what does not count"
        )
