"""Masks of classes, checked before anything is trained on them."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart, check_sizes
from sspyr_mm.machine import num_cores

__all__ = ["check_masks"]

_VOID = 255
"""Value of pixels that are neither learned nor measured."""


@dataclass(frozen=True)
class _Mask:
    """Contents of one mask: its values, (width, height), and what is wrong with it."""

    used: np.ndarray
    size: tuple[int, int]
    problem: str = ""


def check_masks(data: DenseData, names_file: Path) -> None:
    """Refuses masks that training would fail on, or that an evaluator would count wrong silently.

    Args:
        data: VOC with masks of classes.
        names_file: File that names other classes than VOC's, for messages.

    Raises:
        ValueError: If a mask cannot be read or holds other values than classes, background and void; if the masks of
            a part show no class; or if a mask has another size than its image as it is loaded.
    """
    shown = set()
    for part in (data.train, data.test):
        shown |= _check_part(data, part, names_file)
    if missing := [name for number, name in enumerate(data.classes, 1) if number not in shown]:
        warnings.warn(
            f"No mask of {data.root} shows {len(missing)} of {len(data.classes)} classes: {', '.join(missing)}. If the "
            f"tree has other classes, name them in {names_file}, one per line in the order of their numbers",
            stacklevel=3,
        )


def _check_part(data: DenseData, part: DensePart, names_file: Path) -> set[int]:
    """Checks the masks of one part, and returns the numbers of the classes they show."""
    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        masks = list(pool.map(partial(_inspect, len(data.classes)), part.mask_paths))
    source = f"{data.root}/{part.annotations[-1]}"
    if problems := [mask.problem for mask in masks if mask.problem]:
        raise ValueError(
            f"{problems[0]}: a mask is (height, width) of 8 bits, with 0 for the background, 1 to {len(data.classes)} "
            f"for the classes (named in {names_file}, else VOC's) and {_VOID} for void, which does not count. "
            f"{len(problems)} of {len(masks)} masks of {source} need repair"
        )
    used = np.array([mask.used for mask in masks])
    void_only = used[:, _VOID] & ~used[:, 1:_VOID].any(1)
    first = part.mask_paths[void_only.argmax()]
    remedy = (
        f"{_VOID} means void, which is neither learned nor measured. If it stands for an object, write the number of "
        "its class (1, 2, ...) in its place"
    )
    if not used[:, 1:_VOID].any():
        found = f"only 0 and {_VOID}, such as {first}; {remedy}" if void_only.any() else "only 0"
        raise ValueError(f"No mask of {source} shows a class: all {len(masks)} hold {found}")
    if void_only.any():
        warnings.warn(
            f"{void_only.sum()} of {len(masks)} masks of {source} hold only 0 and {_VOID}, such as {first}: {remedy}",
            stacklevel=4,
        )
    check_sizes(part.paths, [mask.size for mask in masks], source, annotated="the mask")
    return set(np.flatnonzero(used.any(0)).tolist())


def _inspect(num_classes: int, file: str) -> _Mask:
    try:
        with Image.open(file) as opened:
            mask, kind = np.asarray(opened), opened.format
    except Exception as error:  # Pillow's readers raise arbitrary exceptions on damaged files
        unread = f"{file} cannot be read as an image ({error}); repair or replace it"
        return _Mask(np.zeros(256, bool), (0, 0), unread)
    size = (mask.shape[1], mask.shape[0])
    whole = mask.dtype.kind in "biu" and mask.ndim == 2 and mask.min() >= 0 and mask.max() <= _VOID
    used = np.bincount(mask.ravel(), minlength=256) > 0 if whole else np.zeros(256, bool)
    wrong = np.flatnonzero(used[num_classes + 1 : _VOID])
    problem = ""
    if not whole:
        problem = f"{file} is {mask.dtype} {mask.shape}"
    elif wrong.size:
        lossy = " and is a JPEG, whose values are not exact" if kind == "JPEG" else ""
        problem = f"{file} has class {num_classes + 1 + wrong[0]}{lossy}"
    return _Mask(used, size, problem)
