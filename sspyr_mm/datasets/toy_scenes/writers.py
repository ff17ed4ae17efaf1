"""Annotations of scenes in COCO and Pascal VOC form."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from sspyr_mm.datasets.toy_scenes.kinds import CLASSES
from sspyr_mm.datasets.toy_scenes.scene import SceneObject

# Outlines are taken at this multiple of the mask's resolution: a contour runs through pixel centres, and at one to
# one that would shave half a pixel off every side.
_ZOOM = 4
# Largest distance of a polygon from the mask's outline, pixels.
_TOLERANCE = 0.3


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Returns the box of a mask.

    Args:
        mask (ndarray): (H, W) bool with at least one pixel set.

    Returns:
        tuple[int, int, int, int]: left, top, width, height in pixels; a single pixel has width and height 1.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Returns the outlines of a mask as COCO polygons.

    COCO polygons have no holes: where a piece has one it is cut in two through the hole.

    Args:
        mask (ndarray): (H, W) bool with at least one pixel set.

    Returns:
        list[list[float]]: for each piece x0, y0, x1, y1, ... in pixels, the image's corner being (0, 0).
    """
    left, top, width, height = bounding_box(mask)
    crop = mask[top : top + height, left : left + width].astype(np.uint8)
    result: list[list[float]] = []
    _outline(crop, left, top, result)
    return result


def _outline(crop: NDArray[np.uint8], left: int, top: int, result: list[list[float]]) -> None:
    # Padded by a pixel, so that an outline never lies on the array's border.
    zoomed = cv2.resize(cv2.copyMakeBorder(crop, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0), None,
                        fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST)  # fmt: skip
    contours, hierarchy = cv2.findContours(zoomed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for index, contour in enumerate(contours):
        _, _, child, parent = hierarchy[0][index]
        if parent >= 0:
            continue
        if child >= 0:
            piece = np.zeros(zoomed.shape, np.uint8)
            cv2.drawContours(piece, contours, index, 1, cv2.FILLED, hierarchy=hierarchy, maxLevel=1)
            # drawContours also fills the holes' own outlines; the mask has the last word.
            small = piece[_ZOOM // 2 :: _ZOOM, _ZOOM // 2 :: _ZOOM][1:-1, 1:-1] & crop
            x, _, w, _ = cv2.boundingRect(contours[child])
            cut = min(max((x + w // 2) // _ZOOM - 1, 1), crop.shape[1] - 1)
            _outline(np.ascontiguousarray(small[:, :cut]), left, top, result)
            _outline(np.ascontiguousarray(small[:, cut:]), left + cut, top, result)
            continue
        simple = cv2.approxPolyDP(contour, _TOLERANCE * _ZOOM, True)[:, 0]
        if len(simple) < 3:
            simple = contour[:, 0]
        # Contours run through the centres of the zoomed pixels.
        points = (simple.astype(np.float64) + 0.5) / _ZOOM - 1.0 + (left, top)
        result.append(np.round(points, 2).ravel().tolist())


def coco_annotations(objects: list[SceneObject], image_id: int) -> list[dict[str, Any]]:
    """Returns the COCO annotations of one image, without their ids.

    Args:
        objects (list[SceneObject]): the annotated objects.
        image_id (int): id of the image.

    Returns:
        list[dict]: image_id, category_id (1 + label), bbox, area (visible pixels), iscrowd 0, segmentation.
    """
    return [
        {
            "image_id": image_id,
            "category_id": item.label + 1,
            "bbox": list(bounding_box(item.mask)),
            "area": int(item.mask.sum()),
            "iscrowd": 0,
            "segmentation": polygons(item.mask),
        }
        for item in objects
    ]


def coco_categories() -> list[dict[str, Any]]:
    """Returns the COCO categories: ids from 1 in the order of ``CLASSES``."""
    return [
        {"id": index, "name": name, "supercategory": "object"}
        for index, name in enumerate(CLASSES, start=1)
    ]


def voc_xml(objects: list[SceneObject], file_name: str, size: tuple[int, int], kind: str) -> str:
    """Returns a Pascal VOC annotation.

    Args:
        objects (list[SceneObject]): the annotated objects.
        file_name (str): name of the image file.
        size (tuple[int, int]): height and width, pixels.
        kind (str): kind of scene, recorded as the source's ``scene``.

    Returns:
        str: the xml. Boxes count from 1 and include their last pixel; ``difficult`` is set where less than 40 % of
        an object is visible.
    """
    lines = [
        "<annotation>",
        "  <folder>VOC2007</folder>",
        f"  <filename>{escape(file_name)}</filename>",
        f"  <source><database>toy scenes</database><scene>{escape(kind)}</scene></source>",
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


def _voc_palette() -> bytes:
    """Returns the 256 RGB triples of Pascal VOC's colour map: the bits of the id spread over the channels."""
    palette = bytearray()
    for index in range(256):
        channels, code = [0, 0, 0], index
        for shift in range(7, -1, -1):
            for channel in range(3):
                channels[channel] |= ((code >> channel) & 1) << shift
            code >>= 3
        palette.extend(channels)
    return bytes(palette)


_PALETTE = _voc_palette()


def write_palette_png(path: Path, mask: NDArray[np.uint8]) -> None:
    """Writes class ids as an 8-bit palette PNG with Pascal VOC's colours.

    Written here because OpenCV writes no palettes, and a grey PNG would look black.

    Args:
        path (Path): the file.
        mask (ndarray): (H, W) uint8 ids.
    """
    height, width = mask.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter type: 0, none
    rows[:, 1:] = mask
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", _PALETTE),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    ]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in chunks:
            file.write(
                struct.pack(">I", len(data))
                + name
                + data
                + struct.pack(">I", zlib.crc32(name + data))
            )
