"""Image labels of COCO's instance annotations."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from sspyr_mm.datasets.finding import require_files
from sspyr_mm.datasets.labelled.labelled_images import ELSEWHERE, LabelledImages
from sspyr_mm.datasets.names import find_coco_images, repeated, warn_of_alike_classes
from sspyr_mm.datasets.text import read_json
from sspyr_mm.files import shortened

_Items = list[dict[str, Any]]


def read_coco(source: Path, image_root: str | None) -> LabelledImages:
    """Reads a COCO json; images are searched in ``image_root``, else as by :func:`find_coco_images`.

    Every instance counts, crowds included. Classes have the order of the category list, images that of the image list;
    images without annotations are kept, as rows of zeros. Raises FileNotFoundError if an image does not exist, and
    ValueError if the json is malformed or has no images or categories, or if ids, names or files are duplicated.
    """
    images, annotations, categories = _load(source)
    ids = [image["id"] for image in images]
    rows = {image_id: row for row, image_id in enumerate(ids)}
    columns = {category["id"]: column for column, category in enumerate(categories)}
    if len(rows) < len(ids) or len(columns) < len(categories):
        raise ValueError(f"{source}: duplicate ids of images or categories; give each its own id")
    classes = tuple(category["name"] for category in categories)
    if wrong := [repr(name) for name in classes if not isinstance(name, str)]:
        raise ValueError(f"{source}: names of categories must be text, got {shortened(wrong)}: put them in quotes")
    if twice := repeated(classes):
        raise ValueError(f"{source}: several categories have the same name: {shortened(twice)}; rename or merge them")
    warn_of_alike_classes(classes, source)
    targets = np.zeros((len(ids), len(columns)), np.int8)
    for annotation in annotations:
        column = _index_of(annotation, "category_id", columns, source, "categories")
        targets[_index_of(annotation, "image_id", rows, source, "images"), column] = 1
    paths = find_coco_images(source, [image["file_name"] for image in images], image_root or "")
    require_files(paths, source, f"add them, or {ELSEWHERE}")
    if twice := repeated(map(os.path.normpath, paths)):
        raise ValueError(
            f"{source}: several images have the same file_name: {shortened(twice)}; merge them, with the "
            "annotations of all"
        )
    return LabelledImages(paths, targets, classes, multi_label=True, image_ids=tuple(map(str, ids)))


def _index_of(annotation: dict[str, Any], key: str, indices: dict[Any, int], source: Path, part: str) -> int:
    """Returns the index of an id in an annotation, which must be in a part of the file."""
    wanted = annotation[key]
    if wanted not in indices:
        other_type = next((f" (but {one!r} is)" for one in indices if str(one) == str(wanted)), "")
        raise ValueError(f"{source}: annotation {annotation.get('id')} has {key} {wanted!r}, not in {part}{other_type}")
    return indices[wanted]


def _check_values(items: _Items, *keys: str) -> None:
    """Checks that keys exist, file names are text and ids are numbers or text; category names are checked later."""
    for item in items:
        for key in keys:
            value = item[key]
            if key == "file_name" and not (isinstance(value, str) and value):
                raise TypeError(f"file_name must be text, got {value!r}: put it in quotes")
            if key.endswith("id") and type(value) not in (int, float, str):
                raise TypeError(f"{key} must be a number or text, got {value!r}")


def _load(source: Path) -> tuple[_Items, _Items, _Items]:
    """Returns images, annotations and categories, with the keys used here checked for presence and type."""
    try:
        content = read_json(source)
        images = content["images"]
        annotations, categories = content.get("annotations", []), content.get("categories", [])
        _check_values(images, "id", "file_name")
        _check_values(categories, "id", "name")
        _check_values(annotations, "image_id", "category_id")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{source} is not a COCO json of instances: it needs images[].id and file_name, categories[].id and name, "
            f"annotations[].image_id and category_id ({type(error).__name__}: {error})"
        ) from error
    if not categories:
        raise ValueError(f"{source} has no categories: give a file with labels, such as COCO's instances_*.json")
    if not images:
        raise ValueError(f"{source} has no images")
    return images, annotations, categories
