"""Images to measure with: a user's, or generated ones that take as long to decode as photographs."""

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sspyr_mm.datasets import UnlabelledImages

SIZE = (640, 480)
"""Width and height of generated images, in pixels: COCO's most frequent."""


def find_images(place: str, count: int) -> list[str]:
    """Paths of a user's images that every pipeline can read; others are passed over, and told.

    Args:
        place: Whatever ``UnlabelledImages`` reads.
        count: At most so many.

    Raises:
        ValueError: If there is none.
    """
    listed = iter(UnlabelledImages(place, lazy_init=True).list_images())
    found: list[str] = []
    passed_over: list[str] = []
    while len(found) < count and (path := next(listed, None)) is not None:
        (found if _can_be_read(path) else passed_over).append(path)
    if passed_over:
        print(
            f"Passed over {len(passed_over)} unreadable image(s), e.g. {passed_over[0]}",
            file=sys.stderr,
        )
    if not found:
        raise ValueError(f"No image in {place} can be read: give a folder of pictures")
    return found


def _can_be_read(path: str) -> bool:
    """By OpenCV and by Pillow: what is compared uses the one or the other."""
    try:
        with Image.open(path) as opened:
            opened.convert("RGB")
        return cv2.imread(path) is not None
    except Exception:  # Pillow's readers raise arbitrary exceptions on damaged files
        return False


def make_images(folder: Path, count: int) -> list[str]:
    """Writes JPEGs: noise of all sizes over a gradient, quality 90, about as many bytes as COCO's.

    Args:
        folder: Where to.
        count: How many.

    Returns:
        Their paths.
    """
    rng = np.random.default_rng(0)
    width, height = SIZE
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    quality += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    paths = []
    for index in range(count):
        image = np.linspace(rng.uniform(0, 120, 3), rng.uniform(80, 255, 3), width)[None]
        image = np.repeat(image, height, axis=0).astype(np.float32)
        for octave in range(2, 11):
            side = 2**octave
            coarse = rng.normal(0, 30 * 2 ** (-0.25 * octave), (side * 3 // 4, side, 1))
            coarse = coarse + rng.normal(0, 60 * 2 ** (-0.8 * octave), (side * 3 // 4, side, 3))
            grown = cv2.resize(coarse.astype(np.float32), SIZE, interpolation=cv2.INTER_CUBIC)
            image = np.add(image, grown, dtype=np.float32)
        path = folder / f"{index:04}.jpg"
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), quality)
        paths.append(str(path))
    return paths
