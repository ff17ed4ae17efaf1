"""COCO with boxes and masks, checked before anything is trained on it."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sspyr_mm.benchmarks.classification.multi_label_data import coco_sources, warn_of_shared_files
from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart, check_sizes, require_files
from sspyr_mm.datasets.names import resolve_names, warn_of_alike_classes
from sspyr_mm.datasets.text import read_text

__all__ = ["read_coco_instances"]

_INSTANCE = ("image_id", "category_id", "bbox", "segmentation", "area")
"""What pycocotools reads of an annotation and cannot be filled in."""


def read_coco_instances(root: str) -> DenseData:
    """Reads COCO's train and val with boxes and masks: 2014 as in the paper if it is there, else 2017.

    Annotations whose ids are missing, zero or not unique are renumbered: COCO's evaluator treats annotation id 0 as
    unmatched.

    Args:
        root: Folder with ``annotations/``, ``train2014/`` and ``val2014/`` (or 2017).

    Returns:
        The data. Warnings report boxes that cannot be learned.

    Raises:
        FileNotFoundError: If a json or images are missing.
        ValueError: If a json is not a COCO json, the parts have different categories, or an image has another size than
            the json says as it is loaded.
    """
    name, *sources = coco_sources(root)
    contents = [_read(Path(source.source)) for source in sources]
    classes = [tuple(c["name"] for c in content["categories"]) for content in contents]
    if classes[0] != classes[1]:
        raise ValueError(
            f"{sources[0].source} and {sources[1].source} have different categories: give two parts of one data set"
        )
    warn_of_alike_classes(classes[0], sources[0].source)
    parts = [
        _part(root, Path(source.source).stem.removeprefix("instances_"), content)
        for source, content in zip(sources, contents, strict=True)
    ]
    data = DenseData(name, root, classes[0], *parts)
    warn_of_shared_files(data, sources[0].source, sources[1].source)
    return data


def _part(root: str, name: str, content: dict[str, Any]) -> DensePart:
    json_file = f"annotations/instances_{name}.json"
    source = f"{root}/{json_file}"
    images = content["images"]
    names = [image["file_name"] for image in images]
    folder = f"{root}/{name}"
    paths = resolve_names(names, [folder]) or [f"{folder}/{one}" for one in names]
    require_files(paths, source)
    if len(set(map(os.path.normpath, paths))) < len(paths):
        raise ValueError(
            f"{source}: several images have the same file_name; make them one, with the annotations of all"
        )
    sizes = [(image["width"], image["height"]) for image in images]
    check_sizes(paths, sizes, source, annotated="its width and height in the json")
    _warn_of_boxes(content, source)
    rewritten = _complete(content)
    for image, path in zip(images, paths, strict=True):
        if os.path.join(folder, image["file_name"]) != path:
            image["file_name"], rewritten = os.path.relpath(path, folder), True
    with open(source, "rb") as file:
        start = file.read(2)
    if start[0] >= 0x80 or 0 in start:  # a byte order mark, or UTF-16
        rewritten = True
    return DensePart(
        (json_file,), f"{name}/", (), tuple(paths), rewritten={json_file: json.dumps(content)} if rewritten else {}
    )


def _complete(content: Mapping[str, Any]) -> bool:
    """Fills in ``iscrowd`` and numbers annotations anew where their ids cannot serve; returns whether it did."""
    annotations = content["annotations"]
    changed = any("iscrowd" not in one for one in annotations)
    for one in annotations:
        one.setdefault("iscrowd", 0)
    ids = [one.get("id") for one in annotations]
    if any(type(one) is not int or one < 1 for one in ids) or len(set(ids)) < len(ids):
        changed = True
        for number, one in enumerate(annotations, 1):
            one["id"] = number
    return changed


def _warn_of_boxes(content: Mapping[str, Any], source: str) -> None:
    """Warns of boxes that mmdet leaves out of training: outside of their image, or smaller than a pixel."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    lost = []
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        right, bottom = sizes[one["image_id"]]
        inside = min(x + width, right) > max(x, 0) and min(y + height, bottom) > max(y, 0)
        if not inside or width < 1 or height < 1 or one["area"] <= 0:
            lost.append(one)
    if lost:
        warnings.warn(
            f"{source}: {len(lost)} of {len(content['annotations'])} boxes lie outside of their image or are smaller "
            f"than a pixel, and are not learned. First: {lost[0]['bbox']} (x, y, width, height) of image "
            f"{lost[0]['image_id']}",
            stacklevel=4,
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file))
        for key in ("images", "annotations", "categories"):
            if not content[key]:
                raise ValueError(f"{key} is empty")
        for image in content["images"]:
            if not isinstance(image["file_name"], str):
                raise TypeError(f"file_name must be text, got {image['file_name']!r}")
            if not all(type(image[key]) in (int, float) for key in ("width", "height")):
                raise TypeError(f"width and height of {image['file_name']} must be numbers")
        _check_instances(content)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not a COCO json of instances: it needs images, categories, and annotations with "
            f"{', '.join(_INSTANCE)} ({type(error).__name__}: {error})"
        ) from error
    return content


def _check_instances(content: Mapping[str, Any]) -> None:
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    if len(sizes) < len(content["images"]):
        raise ValueError("two images have one id")
    categories = {category["id"]: category["name"] for category in content["categories"]}
    if len(set(categories.values())) < len(content["categories"]):
        raise ValueError("two categories have one id or name")
    for number, one in enumerate(content["annotations"], 1):
        which = f"annotation {one.get('id', f'number {number}')}"
        if lacking := [key for key in _INSTANCE if key not in one]:
            raise ValueError(f"{which} has no {lacking[0]}")
        if one["image_id"] not in sizes or one["category_id"] not in categories:
            raise ValueError(
                f"{which} is of image {one['image_id']!r} and category {one['category_id']!r}, of which one is not "
                "there"
            )
        if len(one["bbox"]) != 4:
            raise ValueError(f"{which} has the box {one['bbox']}, not x, y, width, height")
        mask = one["segmentation"]
        if not (one.get("iscrowd") or mask):
            raise ValueError(f"{which} has an empty mask: remove it")
        if isinstance(mask, list) and mask and len(mask[0]) < 6:
            raise ValueError(f"{which} has a polygon of fewer than three points: remove it")
        if isinstance(mask, Mapping) and list(mask["size"]) != sizes[one["image_id"]]:
            raise ValueError(
                f"{which} has a mask of {mask['size']} (height, width), its image {sizes[one['image_id']]}"
            )
    if all(one.get("iscrowd") for one in content["annotations"]):
        raise ValueError("all annotations are crowds, so that there is nothing to detect")
