"""Reads and checks COCO with boxes and masks.

pycocotools and mmdet check none of this: they fail during training, or skip annotations silently.
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sspyr_mm.benchmarks.classification.multi_label_data import coco_sources, warn_of_shared_files
from sspyr_mm.benchmarks.dense.dense_data import DenseData, DensePart, check_sizes
from sspyr_mm.datasets.finding import require_files
from sspyr_mm.datasets.names import resolve_names, warn_of_alike_classes
from sspyr_mm.datasets.text import read_json

_REQUIRED = ("image_id", "category_id", "bbox", "segmentation", "area")
"""Fields of an annotation that pycocotools reads and that cannot be filled in."""


def read_coco_instances(root: str) -> DenseData:
    """Reads COCO's train and val with boxes and masks from its folder: of 2014, as in the paper, or else of 2017.

    Annotations are renumbered if ids are missing, zero or not unique: COCO's evaluator treats id 0 as unmatched.
    Warns about boxes that mmdet leaves out of training. Raises FileNotFoundError if a json or images are missing,
    ValueError if a json is not a COCO json of instances, the parts have different categories, or an image differs in
    size from the json.
    """
    name, *sources = coco_sources(root)
    train, test = (source.source for source in sources)
    contents = [_read(file) for file in (train, test)]
    classes, test_classes = (tuple(one["name"] for one in content["categories"]) for content in contents)
    if classes != test_classes:
        raise ValueError(f"{train} and {test} have different categories: use two parts of one data set")
    warn_of_alike_classes(classes, train)
    data = DenseData(name, root, classes, _part(root, train, contents[0]), _part(root, test, contents[1]))
    warn_of_shared_files(data, train, test)
    return data


def _part(root: str, source: str, content: dict[str, Any]) -> DensePart:
    name = Path(source).stem.removeprefix("instances_")
    folder = f"{root}/{name}"
    images = content["images"]
    names = [image["file_name"] for image in images]
    paths = resolve_names(names, [folder]) or [f"{folder}/{one}" for one in names]
    require_files(paths, source)
    if len(set(map(os.path.normpath, paths))) < len(paths):
        raise ValueError(f"{source}: several images have the same file_name; merge them and their annotations")
    sizes = [(image["width"], image["height"]) for image in images]
    check_sizes(paths, sizes, source, annotated="its width and height in the json")
    _warn_of_boxes(content, source)
    changed = _complete(content["annotations"])
    for image, path in zip(images, paths, strict=True):
        if os.path.join(folder, image["file_name"]) != path:
            image["file_name"] = os.path.relpath(path, folder)
            changed = True
    with open(source, "rb") as file:
        start = file.read(2)
    json_file = source.removeprefix(f"{root}/")
    rewritten = {}
    if changed or start[0] >= 0x80 or 0 in start:  # a byte order mark, or UTF-16
        rewritten[json_file] = json.dumps(content)
    return DensePart((json_file,), f"{name}/", (), tuple(paths), rewritten=rewritten)


def _complete(annotations: list[dict[str, Any]]) -> bool:
    """Fills in ``iscrowd``, renumbers annotations whose ids are unusable, and returns whether anything was changed."""
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
    """Warns about boxes that mmdet leaves out of training: outside of their image, or smaller than a pixel."""
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


def _read(file: str) -> dict[str, Any]:
    try:
        content = read_json(file)
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
            f"{', '.join(_REQUIRED)} ({type(error).__name__}: {error})"
        ) from error
    return content


def _check_instances(content: Mapping[str, Any]) -> None:
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    if len(sizes) < len(content["images"]):
        raise ValueError("two images have the same id")
    categories = {category["id"]: category["name"] for category in content["categories"]}
    if len(set(categories.values())) < len(content["categories"]):
        raise ValueError("two categories have the same id or name")
    for number, one in enumerate(content["annotations"], 1):
        if problem := _problem(one, sizes, categories):
            raise ValueError(f"annotation {one.get('id', f'number {number}')} {problem}")
    if all(one.get("iscrowd") for one in content["annotations"]):
        raise ValueError("all annotations are crowds, so that there is nothing to detect")


def _problem(one: Mapping[str, Any], sizes: Mapping[Any, list], categories: Mapping[Any, str]) -> str | None:
    """Returns the reason why an annotation is unusable, given the [height, width] of the images by id, or None."""
    if missing := [key for key in _REQUIRED if key not in one]:
        return f"has no {missing[0]}"
    if one["image_id"] not in sizes or one["category_id"] not in categories:
        return f"is of image {one['image_id']!r} and category {one['category_id']!r}, one of which does not exist"
    if len(one["bbox"]) != 4:
        return f"has the box {one['bbox']}, not x, y, width, height"
    mask = one["segmentation"]
    if not (one.get("iscrowd") or mask):
        return "has an empty mask: remove it"
    if isinstance(mask, list) and mask and len(mask[0]) < 6:
        return "has a polygon of fewer than three points: remove it"
    size = sizes[one["image_id"]]
    if isinstance(mask, Mapping) and list(mask["size"]) != size:
        return f"has a mask of {mask['size']} (height, width), its image {size}"
    return None
