"""COCO with boxes and masks, checked before anything is trained on it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sspyr_mm.benchmarks.data import coco_sources, warn_of_shared_files
from sspyr_mm.benchmarks.dense.data import DenseData, DensePart, require_files

_INSTANCE = ("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd")
"""What pycocotools reads of an annotation."""


def read_coco_instances(root: str) -> DenseData:
    """COCO's train and val with boxes and masks: 2014 as in the paper if it is there, else 2017.

    Args:
        root: Folder with ``annotations/``, ``train2014/`` and ``val2014/`` (or 2017).

    Raises:
        FileNotFoundError: If it is not there, or images are missing.
        ValueError: If a json is none of COCO's, or the parts have different categories.
    """
    name, *sources = coco_sources(root)
    contents = [_read(Path(source.source)) for source in sources]
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
        parts.append(
            DensePart((json_file,), folder, (), require_files(paths, f"{root}/{json_file}"))
        )
    data = DenseData(name, root, classes[0], *parts)
    warn_of_shared_files(data, sources[0].source, sources[1].source)
    return data


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        for key in ("images", "annotations", "categories"):
            if not content[key]:
                raise ValueError(f"{key} is empty")
        [(image["file_name"], image["width"], image["height"]) for image in content["images"]]
        _check_instances(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not a COCO json of instances: it needs images, categories, and annotations with "
            f"{', '.join(_INSTANCE)} ({type(error).__name__}: {error})"
        ) from error
    return content


def _check_instances(content: Mapping[str, Any]) -> None:
    images = {image["id"] for image in content["images"]}
    categories = {category["id"]: category["name"] for category in content["categories"]}
    if len(set(categories.values())) < len(content["categories"]):
        raise ValueError("two categories have one id or name")
    for one in content["annotations"]:
        [one[key] for key in _INSTANCE]
        if one["image_id"] not in images or one["category_id"] not in categories:
            raise ValueError(
                f"annotation {one['id']} is of image {one['image_id']!r} and category {one['category_id']!r}, of which "
                "one is not there"
            )
        if not (one["iscrowd"] or one["segmentation"]):
            raise ValueError(f"annotation {one['id']} has an empty mask: remove it")
    if all(one["iscrowd"] for one in content["annotations"]):
        raise ValueError("all annotations are crowds, nothing is there to be found")
