"""Image labels from folder names."""

import os
import warnings
from pathlib import Path

import numpy as np

from sspyr_mm.datasets.labelled.labelled_images import LabelledImages, unknown_split
from sspyr_mm.datasets.names import warn_of_alike_classes
from sspyr_mm.datasets.unlabelled import UnlabelledImages


def read_folders(source: Path, split: str | None = None) -> LabelledImages:
    """Reads a folder with one sub-folder of images per class.

    Args:
        source: Folder of the classes, or a folder with one such folder per split.
        split: Folder name of the split.

    Returns:
        Labelled set with one label per image, and classes sorted by name.

    Raises:
        ValueError: If the split does not exist, there are fewer than two classes, or a class has no images.
    """
    if split is not None:
        if not (source / split).is_dir():
            raise unknown_split(source, split, [folder.name for folder in _folders(source)])
        source = source / split
    folders = _folders(source)
    if len(folders) < 2:
        raise ValueError(
            f"{source} must be a COCO json, a table (.csv, .tsv), a VOC tree (Annotations, JPEGImages, ImageSets/Main) "
            f"or a folder with one sub-folder per class, found {len(folders)}"
        )
    warn_of_alike_classes([folder.name for folder in folders], source)
    paths, labels = [], []
    for label, folder in enumerate(folders):
        images = UnlabelledImages(str(folder), lazy_init=True)
        found = images.list_images()
        for notice in images.notices:
            warnings.warn(f"{folder}: {notice}", stacklevel=2)
        paths += found
        labels += [label] * len(found)
    return LabelledImages(
        paths,
        np.eye(len(folders), dtype=np.int8)[labels],
        tuple(folder.name for folder in folders),
        multi_label=False,
        image_ids=tuple(os.path.relpath(path, source) for path in paths),
    )


def _folders(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir() and path.name[0] != ".")
