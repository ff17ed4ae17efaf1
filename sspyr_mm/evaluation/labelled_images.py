"""Labelled images for probes: a COCO json (several labels an image) or a folder per class (one)."""

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from sspyr_mm.datasets import UnlabelledImages


@dataclass(frozen=True)
class LabelledImages:
    """Files and what they show.

    Args:
        paths: N files.
        targets: (N, classes) 0 or 1.
        classes: Names, in the order of the columns.
        multi_label: Whether an image may show several classes, or none.
    """

    paths: list[str]
    targets: np.ndarray
    classes: tuple[str, ...]
    multi_label: bool


def read_labelled(source: str) -> LabelledImages:
    """Reads a labelled set.

    Args:
        source: A COCO json; its images are found as :class:`UnlabelledImages` finds them. Or a folder with one
            sub-folder of images per class.

    Returns:
        The set. COCO: any instance counts, crowd included, classes in the order of the category list, images without
        annotation stay as rows of zeros.

    Raises:
        ValueError: If there are no classes or no images.
    """
    return _read_coco(source) if os.path.isfile(source) else _read_folders(Path(source))


def _read_coco(source: str) -> LabelledImages:
    paths = [item["img_path"] for item in UnlabelledImages(source).load_data_list()]
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        coco = COCO(source)
    columns = {category: column for column, category in enumerate(coco.getCatIds())}
    if not columns:
        raise ValueError(
            f"{source} has no categories: a probe needs labels, such as COCO's instances_*.json"
        )
    targets = np.zeros((len(paths), len(columns)), np.int64)
    for row, image in enumerate(coco.dataset["images"]):
        for annotation in coco.imgToAnns[image["id"]]:
            category = annotation["category_id"]
            if category not in columns:
                raise ValueError(
                    f"{source}: annotation {annotation['id']} is of category {category}, not in categories"
                )
            targets[row, columns[category]] = 1
    classes = tuple(category["name"] for category in coco.loadCats(list(columns)))
    return LabelledImages(paths, targets, classes, multi_label=True)


def _read_folders(source: Path) -> LabelledImages:
    folders = (
        sorted(p for p in source.iterdir() if p.is_dir() and p.name[0] != ".")
        if source.is_dir()
        else []
    )
    if len(folders) < 2:
        raise ValueError(
            f"{source} must be a COCO json or a folder with one sub-folder per class, found {len(folders)}"
        )
    paths, labels = [], []
    for label, folder in enumerate(folders):
        found = [item["img_path"] for item in UnlabelledImages(str(folder)).load_data_list()]
        paths += found
        labels += [label] * len(found)
    targets = np.eye(len(folders), dtype=np.int64)[labels]
    return LabelledImages(paths, targets, tuple(f.name for f in folders), multi_label=False)
