"""VOC with masks of classes, checked before anything is trained on it."""

import os
from collections.abc import Sequence
from pathlib import Path

from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from sspyr_mm.benchmarks.classification.multi_label_data import warn_of_shared_files
from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart, require_files
from sspyr_mm.benchmarks.dense.masks import check_masks
from sspyr_mm.datasets.names import read_voc_ids, warn_of_alike_classes
from sspyr_mm.datasets.text import read_text

__all__ = ["read_voc_masks"]

_LISTS = "ImageSets/Segmentation"
_IMAGE_SUFFIXES = (*(".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG"), *(".bmp", ".tif", ".tiff", ".webp"))
_MASK_SUFFIXES = (".png", ".PNG")


def read_voc_masks(root: str) -> DenseData:
    """Reads VOC with masks of classes: train_aug and val of 2012; of a tree of 2007 trainval and test.

    The variant is inferred from the lists: with ``aug.txt`` it is train_aug; with ``val.txt`` and no ``test.txt``, or
    in a folder called after 2012, it is 2012; else 2007. Other classes than VOC's are read from
    ``ImageSets/Segmentation/class_names.txt``, one per line, without background.

    Args:
        root: ``VOC2012`` or ``VOC2007``, or a folder above it.

    Returns:
        The data. Warnings report classes that no mask shows.

    Raises:
        FileNotFoundError: If there is no such tree, or lists, images or masks are missing.
        ValueError: If a list, a mask or the names of classes cannot be used, the masks of a part show no class, or a
            mask has another size than its image as it is loaded.
    """
    names = ("VOC2012", "VOCdevkit/VOC2012", "VOC2007", "VOCdevkit/VOC2007")
    found = [f for f in (root, *(f"{root}/{name}" for name in names)) if Path(f, "SegmentationClass").is_dir()]
    if not found:
        raise FileNotFoundError(
            f"No VOC tree with masks in {root} (looked for SegmentationClass/ in it and in {', '.join(names)}): "
            "tools/dataset_converters/prepare_voc12.py makes one"
        )
    tree = found[0].rstrip("/")
    name, train, test = _parts(tree)
    names_file = Path(tree, _LISTS, "class_names.txt")
    data = DenseData(name, tree, _class_names(names_file), train, test)
    check_masks(data, names_file)
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


def _part(tree: str, lists: Sequence[str], masks: Sequence[str] = ("SegmentationClass",)) -> DensePart:
    files = tuple(f"{_LISTS}/{name}.txt" for name in lists)
    for file in files:
        if not Path(tree, file).is_file():
            raise FileNotFoundError(f"{tree}/{file} does not exist: complete the tree")
    images = f"{tree}/JPEGImages"
    suffix = _suffix(f"{tree}/{files[0]}", images, _IMAGE_SUFFIXES)
    lists_of_ids = [
        read_voc_ids(f"{tree}/{file}", lambda one: os.path.isfile(f"{images}/{one}{suffix}")) for file in files
    ]
    mask_suffix = _suffix(f"{tree}/{files[0]}", f"{tree}/{masks[0]}", _MASK_SUFFIXES)
    paths = [f"{images}/{one}{suffix}" for ids in lists_of_ids for one in ids]
    mask_paths = [
        f"{tree}/{folder}/{one}{mask_suffix}" for ids, folder in zip(lists_of_ids, masks, strict=True) for one in ids
    ]
    return DensePart(
        files,
        "JPEGImages",
        tuple(masks),
        require_files(paths, tree),
        require_files(mask_paths, tree),
        (suffix, mask_suffix),
        {
            file: "\n".join(ids) + "\n"
            for file, ids in zip(files, lists_of_ids, strict=True)
            if _read_by_mmseg(Path(tree, file)) != ids
        },
    )


def _suffix(list_file: str, folder: str, suffixes: Sequence[str]) -> str:
    """Ending of the files that a list names: the first that any of them has, else the usual one."""
    for suffix in suffixes:

        def exists(one: str, suffix: str = suffix) -> bool:
            return os.path.isfile(f"{folder}/{one}{suffix}")

        if any(map(exists, read_voc_ids(list_file, exists))):
            return suffix
    return suffixes[0]


def _read_by_mmseg(list_file: Path) -> list[str]:
    text = list_file.read_bytes().decode("utf-8", errors="replace").removesuffix("\n")
    return [line.strip() for line in text.split("\n")]


def _class_names(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return tuple(VOC2007_CATEGORIES)
    names = [line.strip() for line in read_text(file).split("\n") if line.strip()]
    if not names or len(set(names)) < len(names) or "background" in [name.casefold() for name in names]:
        raise ValueError(
            f"{file} must name each class once, one per line, without background; got {', '.join(names) or 'nothing'}"
        )
    warn_of_alike_classes(names, file)
    return tuple(names)
