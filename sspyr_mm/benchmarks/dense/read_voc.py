"""Reads and checks VOC with class masks."""

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from mmpretrain.datasets.categories import VOC2007_CATEGORIES
from PIL import Image

from sspyr_mm.benchmarks.classification.multi_label_data import warn_of_shared_files
from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart, check_sizes
from sspyr_mm.datasets.finding import require_files
from sspyr_mm.datasets.names import read_voc_ids, warn_of_alike_classes
from sspyr_mm.datasets.text import read_lines
from sspyr_mm.machine import num_cores

_LISTS = "ImageSets/Segmentation"
_MASKS = "SegmentationClass"
_IMAGE_SUFFIXES = (*(".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG"), *(".bmp", ".tif", ".tiff", ".webp"))
_MASK_SUFFIXES = (".png", ".PNG")
_VOID = 255  # value of pixels that are neither trained on nor evaluated


def read_voc_masks(root: str) -> DenseData:
    """Reads train_aug and val of VOC 2012 with class masks, or trainval and test of VOC 2007.

    ``root`` is ``VOC2012`` or ``VOC2007``, or a folder above it. The variant is inferred from the lists: ``voc12aug``
    with ``aug.txt``; ``voc12`` with ``val.txt`` and either no ``test.txt`` or 2012 in the folder's name; else
    ``voc07``. Classes other than VOC's are read from ``ImageSets/Segmentation/class_names.txt``, one per line, without
    the background. Warns about classes that no mask shows. Raises FileNotFoundError if the tree, or one of its lists,
    images or masks does not exist, ValueError if a list, a mask or the class names cannot be used, the masks of a part
    show no class, or a mask differs in size from its loaded image.
    """
    names = ("VOC2012", "VOCdevkit/VOC2012", "VOC2007", "VOCdevkit/VOC2007")
    found = [folder for folder in (root, *(f"{root}/{name}" for name in names)) if Path(folder, _MASKS).is_dir()]
    if not found:
        raise FileNotFoundError(
            f"No VOC tree with masks in {root} (looked for {_MASKS}/ in it and in {', '.join(names)}): "
            "tools/dataset_converters/prepare_voc12.py creates one"
        )
    tree = found[0].rstrip("/")
    name, *lists = _find_lists(tree)
    train, test = (_part(tree, one) for one in lists)
    names_file = Path(tree, _LISTS, "class_names.txt")
    data = DenseData(name, tree, _class_names(names_file), train, test)
    _check_masks(data, names_file)
    warn_of_shared_files(data, *(f"{tree}/{part.annotations[-1]}" for part in (train, test)))
    return data


def _find_lists(tree: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """Returns the name of the variant, and the folder of masks by list of the training and test parts."""
    lists = {path.stem for path in Path(tree, _LISTS).glob("*.txt") if path.is_file()}
    if "aug" in lists:
        return "voc12aug", {"train": _MASKS, "aug": f"{_MASKS}Aug"}, {"val": _MASKS}
    of_2012 = "2012" in Path(tree).resolve().name  # its test list comes without masks
    if "val" in lists and (of_2012 or "test" not in lists):
        return "voc12", {"train": _MASKS}, {"val": _MASKS}
    return "voc07", {"trainval": _MASKS}, {"test": _MASKS}


def _part(tree: str, lists: Mapping[str, str]) -> DensePart:
    files = [f"{_LISTS}/{name}.txt" for name in lists]
    folders = tuple(lists.values())
    require_files([f"{tree}/{file}" for file in files], tree)
    images = f"{tree}/JPEGImages"
    suffix = _suffix(f"{tree}/{files[0]}", images, _IMAGE_SUFFIXES)
    mask_suffix = _suffix(f"{tree}/{files[0]}", f"{tree}/{folders[0]}", _MASK_SUFFIXES)
    paths, mask_paths, rewritten = [], [], {}
    for file, folder in zip(files, folders, strict=True):
        ids = read_voc_ids(f"{tree}/{file}", partial(_exists, images, suffix))
        paths += [f"{images}/{one}{suffix}" for one in ids]
        mask_paths += [f"{tree}/{folder}/{one}{mask_suffix}" for one in ids]
        if _read_by_mmseg(Path(tree, file)) != ids:
            rewritten[file] = "\n".join(ids) + "\n"
    for listed in (paths, mask_paths):
        require_files(listed, tree)
    suffixes = suffix, mask_suffix
    return DensePart(tuple(files), "JPEGImages", folders, tuple(paths), tuple(mask_paths), suffixes, rewritten)


def _exists(folder: str, suffix: str, one: str) -> bool:
    return os.path.isfile(f"{folder}/{one}{suffix}")


def _suffix(list_file: str, folder: str, suffixes: Sequence[str]) -> str:
    """Returns the first suffix with which a listed file exists, else the usual one."""
    for suffix in suffixes:
        exists = partial(_exists, folder, suffix)
        if any(map(exists, read_voc_ids(list_file, exists))):
            return suffix
    return suffixes[0]


def _read_by_mmseg(list_file: Path) -> list[str]:
    text = list_file.read_bytes().decode("utf-8", errors="replace").removesuffix("\n")
    return [line.strip() for line in text.split("\n")]


def _class_names(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return tuple(VOC2007_CATEGORIES)
    names = read_lines(file)
    if not names or len(set(names)) < len(names) or "background" in [name.casefold() for name in names]:
        raise ValueError(
            f"{file} must name each class once, one per line, without background; got {', '.join(names) or 'nothing'}"
        )
    warn_of_alike_classes(names, file)
    return tuple(names)


def _check_masks(data: DenseData, names_file: Path) -> None:
    """Raises ValueError for masks on which training would fail or evaluation would silently be wrong."""
    shown = _check_part(data, data.train, names_file) | _check_part(data, data.test, names_file)
    if missing := [name for number, name in enumerate(data.classes, 1) if number not in shown]:
        warnings.warn(
            f"No mask of {data.root} shows {len(missing)} of {len(data.classes)} classes: {', '.join(missing)}. If the "
            f"tree has other classes, name them in {names_file}, one per line in the order of their numbers",
            stacklevel=3,
        )


def _check_part(data: DenseData, part: DensePart, names_file: Path) -> set[int]:
    """Checks the masks of one part and returns the values they hold."""
    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        inspected = list(pool.map(partial(_inspect, len(data.classes)), part.mask_paths))
    masks = [one for one in inspected if not isinstance(one, str)]
    source = f"{data.root}/{part.annotations[-1]}"
    if problems := [one for one in inspected if isinstance(one, str)]:
        raise ValueError(
            f"{problems[0]}: a mask is (height, width) of 8 bits, with 0 for the background, 1 to {len(data.classes)} "
            f"for the classes (named in {names_file}, else VOC's) and {_VOID} for void, which is ignored. "
            f"{len(problems)} of {len(inspected)} masks of {source} need repair"
        )
    used = np.array([values for values, _ in masks])
    void_only = used[:, _VOID] & ~used[:, 1:_VOID].any(1)
    first = part.mask_paths[void_only.argmax()]
    remedy = (
        f"{_VOID} means void, which is neither trained on nor evaluated. If it marks an object, replace it by the "
        "number of its class (1, 2, ...)"
    )
    if not used[:, 1:_VOID].any():
        found = f"only 0 and {_VOID}, such as {first}; {remedy}" if void_only.any() else "only 0"
        raise ValueError(f"No mask of {source} shows a class: all {len(masks)} hold {found}")
    if void_only.any():
        warnings.warn(
            f"{void_only.sum()} of {len(masks)} masks of {source} hold only 0 and {_VOID}, such as {first}: {remedy}",
            stacklevel=4,
        )
    check_sizes(part.paths, [size for _, size in masks], source, annotated="the mask")
    return set(np.flatnonzero(used.any(0)).tolist())


def _inspect(num_classes: int, file: str) -> tuple[np.ndarray, tuple[int, int]] | str:
    """Returns the values that a mask holds, (256,) bool, and its (width, height), or the problem of the mask."""
    try:
        with Image.open(file) as opened:
            mask, kind = np.asarray(opened), opened.format
    except Exception as error:  # Pillow's readers raise arbitrary exceptions on damaged files
        return f"{file} cannot be read as an image ({error}); repair or replace it"
    if mask.dtype.kind not in "biu" or mask.ndim != 2 or mask.min() < 0 or mask.max() > _VOID:
        return f"{file} is {mask.dtype} {mask.shape}"
    used = np.bincount(mask.ravel(), minlength=256) > 0
    wrong = np.flatnonzero(used[num_classes + 1 : _VOID])
    if wrong.size:
        lossy = " and is a JPEG, whose values are not exact" if kind == "JPEG" else ""
        return f"{file} has class {num_classes + 1 + wrong[0]}{lossy}"
    height, width = mask.shape
    return used, (width, height)
