"""Reader of labelled sets in every supported format."""

import os
import warnings
from pathlib import Path

import numpy as np

from sspyr_mm.datasets.labelled.coco_labels import read_coco
from sspyr_mm.datasets.labelled.csv_labels import read_table
from sspyr_mm.datasets.labelled.labelled_images import LabelledImages, unknown_split
from sspyr_mm.datasets.labelled.voc_labels import find_voc_tree, read_voc
from sspyr_mm.datasets.names import warn_of_alike_classes
from sspyr_mm.datasets.unlabelled import UnlabelledImages

_SPLITS = {"train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing"}
"""Names of folders that are splits, not classes, if all of a set are such."""


def read_labelled(
    source: str | os.PathLike, *, split: str | None = None, image_root: str | None = None
) -> LabelledImages:
    """Reads a labelled set.

    Args:
        source: COCO ``.json`` of instances; ``.csv`` or ``.tsv`` table; VOC tree, or VOCdevkit with one tree; folder
            with one sub-folder of images per class.
        split: Split of a VOC tree (``ImageSets/Main/<split>.txt``), or the sub-folder with the folders of the classes.
            Files contain a single split.
        image_root: Folder of the images of a json, table or VOC tree; default: their usual place.

    Returns:
        Labelled set with at least one image and one class.

    Raises:
        FileNotFoundError: If the source, an annotation or an image does not exist.
        ValueError: If the source is malformed or empty, or does not have the split.
    """
    path = Path(source).expanduser()
    root = os.path.expanduser(image_root) if image_root else None
    if not path.exists():
        raise FileNotFoundError(
            f"No labelled set at {path}: give a COCO json, a table (.csv, .tsv), a VOC tree or a folder with one "
            "sub-folder per class"
        )
    if path.is_dir():
        if tree := find_voc_tree(path):
            return read_voc(tree, split, root)
        if root:
            raise ValueError(f"image_root does not apply to {path}: its folders contain the images; leave it out")
        return _read_folders(path, split)
    readers = {".json": read_coco, ".csv": read_table, ".tsv": read_table}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} is neither a COCO .json nor a table (.csv, .tsv)")
    if split is not None:
        raise ValueError(f"{path} contains a single split: give the file of split {split!r}, or leave split out")
    return reader(path, root)


def _read_folders(source: Path, split: str | None) -> LabelledImages:
    """Reads a folder with one sub-folder per class, or one such folder per split; classes are sorted by name."""
    if split is not None:
        if not (source / split).is_dir():
            raise unknown_split(source, split, [folder.name for folder in _folders(source)])
        source = source / split
    folders = _folders(source)
    if folders and all(folder.name.lower() in _SPLITS for folder in folders):
        raise unknown_split(source, None, [folder.name for folder in folders])
    if len(folders) < 2:
        raise ValueError(
            f"{source} must be a COCO json, a table (.csv, .tsv), a VOC tree (Annotations, JPEGImages, ImageSets/Main) "
            f"or a folder with one sub-folder per class, found {len(folders)}"
        )
    classes = tuple(folder.name for folder in folders)
    warn_of_alike_classes(classes, source)
    paths, labels = [], []
    for label, folder in enumerate(folders):
        images = UnlabelledImages(str(folder), lazy_init=True)
        found = images.list_images()
        for notice in images.notices:
            warnings.warn(f"{folder}: {notice}", stacklevel=2)
        paths += found
        labels += [label] * len(found)
    targets = np.eye(len(folders), dtype=np.int8)[labels]
    image_ids = tuple(os.path.relpath(path, source) for path in paths)
    return LabelledImages(paths, targets, classes, multi_label=False, image_ids=image_ids)


def _folders(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir() and path.name[0] != ".")
