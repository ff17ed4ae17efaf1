"""Writing of scenes in the layouts of COCO and Pascal VOC."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sspyr_mm.datasets.names import voc_colours
from sspyr_mm.datasets.toy_scenes.objects import CLASSES
from sspyr_mm.datasets.toy_scenes.scene import KINDS, Scene, SceneObject

# Outlines are computed at this multiple of the mask's resolution: contours run through pixel centres, which at the
# original resolution would remove half a pixel on every side.
_ZOOM = 4
# Largest distance of a polygon from the mask's outline, pixels.
_TOLERANCE = 0.3


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Returns left, top, width and height of the box of a mask (H, W), in pixels; a single pixel has size 1."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, width, height


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Returns the outlines of a mask (H, W) as COCO polygons: x0, y0, x1, y1, ... in pixels per piece.

    COCO polygons have no holes: a piece with a hole is cut in two through the hole.
    """
    left, top, width, height = bounding_box(mask)
    return list(_outlines(mask[top : top + height, left : left + width].astype(np.uint8), left, top))


def _outlines(crop: NDArray[np.uint8], left: int, top: int) -> Iterator[list[float]]:
    # Padded by a pixel, so that an outline never lies on the array's border.
    zoomed = np.pad(crop, 1).repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    contours, hierarchy = cv2.findContours(zoomed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for index, contour in enumerate(contours):
        _, _, child, parent = hierarchy[0][index]
        if parent >= 0:
            continue
        if child >= 0:
            piece = np.zeros(zoomed.shape, np.uint8)
            cv2.drawContours(piece, contours, index, 1, cv2.FILLED, hierarchy=hierarchy, maxLevel=1)
            # drawContours also fills the outlines of holes, so the result is limited to the mask.
            small = piece[_ZOOM // 2 :: _ZOOM, _ZOOM // 2 :: _ZOOM][1:-1, 1:-1] & crop
            x, _, w, _ = cv2.boundingRect(contours[child])
            cut = min(max((x + w // 2) // _ZOOM - 1, 1), crop.shape[1] - 1)
            yield from _outlines(small[:, :cut], left, top)
            yield from _outlines(small[:, cut:], left + cut, top)
            continue
        simple = cv2.approxPolyDP(contour, _TOLERANCE * _ZOOM, True)[:, 0]
        if len(simple) < 3:
            simple = contour[:, 0]
        # Contours run through the centres of the zoomed pixels.
        points = (simple.astype(np.float64) + 0.5) / _ZOOM - 1.0 + (left, top)
        yield np.round(points, 2).ravel().tolist()


def voc_xml(objects: list[SceneObject], file_name: str, size: tuple[int, int], kind: str) -> str:
    """Returns the text of a Pascal VOC annotation of an image of ``size`` (height, width).

    Box coordinates start at 1 and include the last pixel; objects that are less than 40 % visible are difficult.
    """
    lines = [
        "<annotation>",
        "  <folder>VOC2007</folder>",
        f"  <filename>{file_name}</filename>",
        f"  <source><database>toy scenes</database><scene>{kind}</scene></source>",
        f"  <size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>",
        "  <segmented>1</segmented>",
    ]
    for item in objects:
        left, top, width, height = bounding_box(item.mask)
        lines += [
            "  <object>",
            f"    <name>{item.name}</name>",
            "    <pose>Unspecified</pose>",
            f"    <truncated>{int(item.truncated)}</truncated>",
            f"    <occluded>{int(item.visible < 0.95 and not item.truncated)}</occluded>",
            f"    <difficult>{int(item.visible < 0.4)}</difficult>",
            f"    <bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
            f"<xmax>{left + width}</xmax><ymax>{top + height}</ymax></bndbox>",
            "  </object>",
        ]
    lines.append("</annotation>")
    return "\n".join(lines) + "\n"


def make_folders(root: Path) -> None:
    """Creates the folders that :func:`write_scene` and :func:`write_lists` write to."""
    for name in ("train2017", "val2017", "annotations"):
        (root / name).mkdir(parents=True)
    for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / "VOC2007" / name).mkdir(parents=True)


def write_scene(root: Path, split: str, image_id: int, scene: Scene) -> dict[str, Any]:
    """Writes the image, the XML annotation and the mask of a scene, with names from ``image_id``.

    Returns:
        Entries of COCO's json: ``image`` and ``annotations``, the latter without ids.
    """
    height, width = scene.class_mask.shape
    kind = KINDS[scene.kind].name
    coco_file = root / f"{split}2017" / f"{image_id:012d}.jpg"
    _, data = cv2.imencode(".jpg", scene.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    coco_file.write_bytes(data.tobytes())
    voc, stem = root / "VOC2007", f"{image_id:06d}"
    voc_file = voc / "JPEGImages" / f"{stem}.jpg"
    try:
        os.link(coco_file, voc_file)
    except OSError:  # a file system without hard links
        shutil.copyfile(coco_file, voc_file)
    xml = voc_xml(scene.objects, voc_file.name, (height, width), kind)
    (voc / "Annotations" / f"{stem}.xml").write_text(xml, encoding="utf-8")
    mask = Image.fromarray(scene.class_mask)
    mask.putpalette([value for colour in voc_colours(256) for value in colour])
    mask.save(voc / "SegmentationClass" / f"{stem}.png")
    image = dict(id=image_id, file_name=coco_file.name, height=height, width=width, scene_kind=kind)
    annotations = [
        {
            "image_id": image_id,
            "category_id": item.label + 1,
            "bbox": list(bounding_box(item.mask)),
            "area": int(item.mask.sum()),  # visible pixels
            "iscrowd": 0,
            "segmentation": polygons(item.mask),
        }
        for item in scene.objects
    ]
    return {"image": image, "annotations": annotations}


def write_lists(root: Path, split: str, records: Sequence[dict[str, Any]], version: int) -> int:
    """Writes COCO's json and VOC's image sets from results of :func:`write_scene`; returns the annotation count."""
    annotations = [item for record in records for item in record["annotations"]]
    coco = {
        "info": {"description": "toy scenes", "version": str(version)},
        "licenses": [],
        "images": [record["image"] for record in records],
        "annotations": [{"id": number, **item} for number, item in enumerate(annotations, start=1)],
        "categories": [
            {"id": index, "name": name, "supercategory": "object"} for index, name in enumerate(CLASSES, start=1)
        ],
    }
    path = root / "annotations" / f"instances_{split}2017.json"
    path.write_text(json.dumps(coco, separators=(",", ":")), encoding="utf-8")
    stems = "".join(f"{record['image']['id']:06d}\n" for record in records)
    sets = root / "VOC2007" / "ImageSets"
    # The usual protocols are train -> val and trainval -> test: neither may test on its training images.
    for name in ("train", "trainval") if split == "train" else ("val", "test"):
        for purpose in ("Main", "Segmentation"):
            (sets / purpose / f"{name}.txt").write_text(stems, encoding="utf-8")
    names = "".join(f"{name}\n" for name in CLASSES)
    (sets / "Segmentation" / "class_names.txt").write_text(names, encoding="utf-8")
    return len(annotations)
