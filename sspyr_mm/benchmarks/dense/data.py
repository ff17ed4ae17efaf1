"""Data of detection and segmentation: where they are, what is in them, and whether they are the published ones."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from sspyr_mm.benchmarks.data import MeasuredData, coco_sources

_INSTANCE = ("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd")
"""What pycocotools reads of an annotation."""
_CLASS_NAMES = "ImageSets/Segmentation/class_names.txt"


@dataclass(frozen=True)
class DensePart:
    """One part of a data set, as mmdet's and mmseg's data sets are told.

    Args:
        annotations: Files that say what is in it, below the root: a COCO json, or lists of ids.
        images: Folder of the images, below the root.
        masks: For every list the folder of its masks, below the root; empty for COCO.
        paths: Of all images.
    """

    annotations: tuple[str, ...]
    images: str
    masks: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True)
class DenseData(MeasuredData):
    """A data set with its two parts.

    Args:
        name: ``coco14``, ``coco17``, ``voc12aug``, ``voc12`` or ``voc07``.
        root: Its folder.
        classes: Names; of segmentation without the background.
        train: To learn from.
        test: To measure on.
    """

    name: str
    root: str
    classes: tuple[str, ...]
    train: DensePart
    test: DensePart

    @cached_property
    def labels_digest(self) -> str:
        """A hash of the classes and of all annotation files: the same on every machine."""
        result = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.train, self.test):
            for name in part.annotations:
                result.update(Path(self.root, name).read_bytes())
            for mask in _masks(self.root, part):
                result.update(Path(mask).read_bytes())
        return result.hexdigest()


def read_coco_instances(root: str) -> DenseData:
    """COCO's train and val with boxes and masks: 2014 as in the paper if it is there, else 2017.

    Args:
        root: Folder with ``annotations/``, ``train2014/`` and ``val2014/`` (or 2017).

    Raises:
        FileNotFoundError: If it is not there, or images are missing.
        ValueError: If a json is none of COCO's, or the parts have different categories.
    """
    name, *sources = coco_sources(root)
    contents = [_read_coco(Path(source.source)) for source in sources]
    classes = [tuple(c["name"] for c in content["categories"]) for content in contents]
    if classes[0] != classes[1]:
        raise ValueError(
            f"{sources[0].source} and {sources[1].source} have different categories: give two parts of one data set"
        )
    parts = []
    for part, content in zip(("train", "val"), contents, strict=True):
        folder = f"{part}20{name[4:]}/"
        paths = tuple(f"{root}/{folder}{image['file_name']}" for image in content["images"])
        json_file = f"annotations/instances_{folder[:-1]}.json"
        parts.append(DensePart((json_file,), folder, (), _present(paths, f"{root}/{json_file}")))
    return DenseData(name, root, classes[0], *parts)


def read_voc_masks(root: str) -> DenseData:
    """VOC with masks of classes: train_aug and val of 2012; of a tree of 2007 trainval and test.

    Other classes than VOC's are read from ``ImageSets/Segmentation/class_names.txt``, one a line without background.

    Args:
        root: ``VOC2012`` or ``VOC2007``, or a folder above it.

    Raises:
        FileNotFoundError: If there is none, or lists, images or masks are missing.
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
    listed = Path(tree, _CLASS_NAMES)
    classes = tuple(listed.read_text().split()) if listed.is_file() else tuple(VOC2007_CATEGORIES)
    if Path(tree, "ImageSets/Segmentation/aug.txt").is_file():
        masks = ("SegmentationClass", "SegmentationClassAug")
        train, test = _voc_part(tree, ("train", "aug"), masks), _voc_part(tree, ("val",))
        return DenseData("voc12aug", tree, classes, train, test)
    if Path(tree).name == "VOC2012":
        train, test = _voc_part(tree, ("train",)), _voc_part(tree, ("val",))
        return DenseData("voc12", tree, classes, train, test)
    return DenseData(
        "voc07", tree, classes, _voc_part(tree, ("trainval",)), _voc_part(tree, ("test",))
    )


def _read_coco(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        for key in ("images", "annotations", "categories"):
            if not content[key]:
                raise ValueError(f"{key} is empty")
        [(image["id"], image["file_name"]) for image in content["images"]]
        [(category["id"], category["name"]) for category in content["categories"]]
        for one in content["annotations"]:
            [one[key] for key in _INSTANCE]
        if all(one["iscrowd"] for one in content["annotations"]):
            raise ValueError("all annotations are crowds, nothing is there to be found")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not a COCO json of instances: it needs images, categories, and annotations with "
            f"{', '.join(_INSTANCE)} ({type(error).__name__}: {error})"
        ) from error
    return content


def _voc_part(
    tree: str, lists: Sequence[str], masks: Sequence[str] = ("SegmentationClass",)
) -> DensePart:
    files = tuple(f"ImageSets/Segmentation/{name}.txt" for name in lists)
    paths: list[str] = []
    for file in files:
        if not Path(tree, file).is_file():
            raise FileNotFoundError(f"{tree}/{file} does not exist: complete the tree")
        ids = Path(tree, file).read_text().split()
        paths += [f"{tree}/JPEGImages/{one}.jpg" for one in ids]
    part = DensePart(files, "JPEGImages", tuple(masks), _present(paths, tree))
    _present(_masks(tree, part), tree)
    return part


def _masks(root: str, part: DensePart) -> list[str]:
    return [
        f"{root}/{folder}/{one}.png"
        for file, folder in zip(part.annotations, part.masks, strict=False)
        for one in Path(root, file).read_text().split()
    ]


def _present(paths: Sequence[str], source: str) -> tuple[str, ...]:
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{source} names {len(missing)} of {len(paths)} files that do not exist, such as {missing[0]}: complete it"
        )
    return tuple(paths)
