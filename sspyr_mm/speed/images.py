"""Images to measure with: given ones, or generated ones that take as long to decode as photographs."""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sspyr_mm.datasets import UnlabelledImages

__all__ = ["find_images", "make_images"]

SIZE = (640, 480)
"""Width and height of generated images, in pixels: the most frequent size in COCO."""


def find_images(place: str, count: int) -> list[str]:
    """Lists up to ``count`` images of ``UnlabelledImages`` that OpenCV and Pillow can read; reports skipped ones.

    Raises ValueError if no image can be read.
    """
    found: list[str] = []
    skipped: list[str] = []
    for path in UnlabelledImages(place, lazy_init=True).list_images():
        if len(found) == count:
            break
        (found if _is_readable(path) else skipped).append(path)
    if skipped:
        print(f"Skipped {len(skipped)} unreadable image(s), e.g. {skipped[0]}", file=sys.stderr)
    if not found:
        raise ValueError(f"No image in {place} can be read; pass a folder of images")
    return found


def _is_readable(path: str) -> bool:
    try:
        with Image.open(path) as opened:
            opened.convert("RGB")
        return cv2.imread(path) is not None
    except Exception:  # Pillow's readers raise arbitrary exceptions on damaged files
        return False


def make_images(folder: Path, count: int) -> list[str]:
    """Writes JPEGs of noise at all scales over a gradient, about as large as those of COCO; returns their paths."""
    rng = np.random.default_rng(0)
    width, height = SIZE
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    quality += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    paths = [str(folder / f"{index:04}.jpg") for index in range(count)]
    for path in paths:
        image = np.linspace(rng.uniform(0, 120, 3), rng.uniform(80, 255, 3), width)[None]
        image = np.repeat(image, height, axis=0).astype(np.float32)
        for octave in range(2, 11):
            side = 2**octave
            coarse = rng.normal(0, 30 * 2 ** (-0.25 * octave), (side * 3 // 4, side, 1))
            coarse = coarse + rng.normal(0, 60 * 2 ** (-0.8 * octave), (side * 3 // 4, side, 3))
            grown = cv2.resize(coarse.astype(np.float32), SIZE, interpolation=cv2.INTER_CUBIC)
            image = np.add(image, grown, dtype=np.float32)
        cv2.imwrite(path, image.clip(0, 255).astype(np.uint8), quality)
    return paths
