"""Images to measure with: a user's, or generated ones that take as long to decode as photographs."""

from pathlib import Path

import cv2
import numpy as np

from sspyr_mm.datasets import UnlabelledImages

SIZE = (640, 480)
"""Width and height of generated images, in pixels: COCO's most frequent."""


def find_images(place: str, count: int) -> list[str]:
    """Paths of a user's images.

    Args:
        place: Whatever ``UnlabelledImages`` reads.
        count: At most so many.

    Raises:
        ValueError: If there is none.
    """
    found = UnlabelledImages(place, lazy_init=True).list_images()
    if not found:
        raise ValueError(f"No image in {place}: give a folder of pictures")
    return found[:count]


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
