"""Images to measure with, given or generated, and the pipeline from a file to a batch."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from PIL import Image
from torch.utils.data import default_collate

from sspyr_mm.datasets import LoadRGBImage, PackPyramidInputs, PyramidViewTransform, UnlabelledImages
from sspyr_mm.pyramid import PyramidSpec

__all__ = ["PyramidPipeline", "collate", "find_images", "make_images"]

SIZE = (640, 480)  # width and height of generated images in pixels, the most frequent ones in COCO


def find_images(place: str, count: int) -> list[str]:
    """Lists up to ``count`` readable images of ``UnlabelledImages``; reports those that it skips.

    Raises ValueError if no image can be read.
    """
    found: list[str] = []
    skipped: list[str] = []
    load = LoadRGBImage()
    for path in UnlabelledImages(place, lazy_init=True).list_images():
        if len(found) == count:
            break
        (skipped if load.peek(path) is None else found).append(path)
    if skipped:
        print(f"Skipped {len(skipped)} unreadable image(s), e.g. {skipped[0]}", file=sys.stderr)
    if not found:
        raise ValueError(f"No image in {place} can be read; pass a folder of images")
    return found


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


class PyramidPipeline:
    """The pipeline of the shipped configs: decode, cut regions, pack."""

    def __init__(self, spec: PyramidSpec) -> None:
        self.load = LoadRGBImage(skip_broken=False)
        self.load.set_views(spec.views)  # as PyramidLinkHook does
        self.transforms = Compose([self.load, PyramidViewTransform(spec), PackPyramidInputs()])

    def decode(self, path: str) -> np.ndarray:
        """Returns one image, (H, W, 3) uint8."""
        return self.load({"img_path": path})["img"]

    def __call__(self, path: str) -> dict[str, Any]:
        """Returns the packed regions of one image."""
        return self.transforms({"img_path": path})


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stacks the regions of several images, as :class:`PyramidPipeline` returns them."""
    return {"inputs": default_collate([sample["inputs"] for sample in samples])}
