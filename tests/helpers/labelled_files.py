"""Small labelled sets on disk."""

import json

import cv2
import numpy as np

COCO = {
    "images": [{"id": i, "file_name": f"{n}.jpg"} for i, n in enumerate(("ab", "cd", "ef"), 5)],
    "categories": [{"id": 7, "name": "cart"}, {"id": 3, "name": "tree"}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 3, "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 7, "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 7, "iscrowd": 1},
    ],
}


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), 128, np.uint8))


def write_coco(folder, **changes):
    """Writes the images and ``instances_val2017.json``, and returns the path of the json."""
    for name in "ab", "cd", "ef":
        write_image(folder / "val2017" / f"{name}.jpg")
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**COCO, **changes}))
    return path


def write_voc(folder, annotations, splits):
    """Writes a VOC tree with images, given name -> [(label, difficult)] and split -> names."""
    for name, objects in annotations.items():
        write_image(folder / "JPEGImages" / f"{name}.jpg")
        items = "".join(
            f"<object><name>{label}</name><difficult>{int(difficult)}</difficult>"
            "<part><name>head</name></part></object>"
            for label, difficult in objects
        )
        path = folder / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation>{items}</annotation>")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def names_of(found):
    """Returns the file names of labelled images."""
    return [path.rsplit("/", 1)[1] for path in found.paths]


def shown_classes(found):
    """Returns the set of classes that each image shows or ignores."""
    return [{found.classes[column] for column in row.nonzero()[0]} for row in found.targets]
