"""Images to measure with: given ones, or generated ones that take as long to decode as photographs."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from sspyr_mm.datasets import UnlabelledImages

__all__ = ["find_images", "make_images"]

SIZE = (640, 480)
"""Width and height of generated images, in pixels: the most frequent size in COCO."""


def find_images(place: str, count: int) -> list[str]:
    """Lists up to ``count`` readable images of ``UnlabelledImages``; reports the others, which are skipped.

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
            return bool(opened.convert("RGB"))
    except Exception:  # Pillow's readers raise arbitrary exceptions on damaged files
        return False


def make_images(folder: Path, count: int) -> list[str]:
    """Writes JPEGs of noise with the falling spectrum and the file size of COCO's photographs; returns their paths."""
    rng = np.random.default_rng(0)
    width, height = SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))[..., None]
    frequency[0, 0] = np.inf  # the mean is set below
    paths = [str(folder / f"{index:04}.jpg") for index in range(count)]
    for path in paths:
        waves = np.fft.rfft2(rng.normal(size=(height, width, 3)), axes=(0, 1)) / frequency**1.3
        colour = np.fft.irfft2(waves, (height, width), axes=(0, 1))
        image = colour[..., :1] + colour / 4
        image *= 50 / image.std()
        Image.fromarray((128 + image).clip(0, 255).astype(np.uint8)).save(path, quality=90, subsampling="4:4:4")
    return paths
