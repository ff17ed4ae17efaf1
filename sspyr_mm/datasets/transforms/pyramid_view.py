"""Cropping of the regions of a decoded image in the workers of a loader, and their packing into tensors."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from torch.nn import functional as F

from sspyr_mm.datasets.transforms.seeding import SampleSeed
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.views import ViewsSpec


@TRANSFORMS.register_module()
class PyramidViewTransform(SampleSeed, BaseTransform):
    """Crops the regions of every group of views from an image; the device cuts them into patches and augments these.

    If the views share a region, one region is cropped and both views take their patches from it, so that
    patch m of V and patch m of V' show the same cell.

    Random numbers depend only on the seed of the run, the epoch and the sample: the views are the same for any number
    of workers or processes, and after a restart. :class:`ViewSeedHook` sets seed and epoch; without them (in a
    notebook, for example) the numbers come from torch's generator of the process, which ``DataLoader`` seeds per
    worker.

    Required keys: ``img`` (H, W, 3) uint8, or (H, W); ``sample_idx`` once an epoch is set. Modified keys: none; ``img``
    is removed. Added keys: ``regions``, a dict from group name to (R, region, region, 3) uint8, contiguous;
    ``view_seed``, the int that seeds the augmentation on the device.

    Args:
        pyramid: Config of the pyramid, or a spec; default: the model's views, set by :class:`PyramidLinkHook`, which
            keeps the numbers of a config in one place.

    Source: paper, section B; official code, ``multicropdataset.py`` (geometry).
    Deviation: the official code uses Pillow's bilinear filter for all sizes; see :func:`resize`.
    """

    def __init__(self, pyramid: PyramidSpec | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._views = None if pyramid is None else PyramidSpec.from_config(pyramid).views

    @property
    def views(self) -> ViewsSpec:
        """Views to crop; raises ValueError if none are set."""
        if self._views is None:
            raise ValueError(
                "PyramidViewTransform has no pyramid: set pyramid=dict(s0=...), or keep PyramidLinkHook in "
                "the config, which sets it to that of the model"
            )
        return self._views

    def set_views(self, views: ViewsSpec) -> None:
        """Sets the views of the model; raises ValueError if this transform has different ones."""
        if self._views is not None and self._views != views:
            raise ValueError(
                f"PyramidViewTransform and the model have different pyramids, {self._views} and {views}: "
                "remove the transform's `pyramid`"
            )
        self._views = views

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crops the regions of one image, and enlarges small ones; raises ValueError if it is empty or not uint8."""
        image = as_rgb(results.pop("img"))
        view_seed = self.sample_seed(results)
        if view_seed is None:
            view_seed = int(torch.randint(2**62, ()))
        # Not NumPy's generator: the device uses it with the same seed, and single numbers take ten times as long.
        rng = random.Random(view_seed)
        regions = {}
        for group in self.views.groups:
            crops = []
            for _ in range(group.num_regions):
                top, left, height, width = draw_crop(rng, image.shape[:2], group.area, group.aspect)
                crops.append(resize(image[top : top + height, left : left + width], group.region))
            # A single crop (a shared region) is not copied.
            regions[group.name] = np.stack(crops) if len(crops) > 1 else crops[0][None]
        return {**results, "regions": regions, "view_seed": view_seed}

    def __repr__(self) -> str:
        groups = self._views.groups if self._views else ()
        return f"{type(self).__name__}({', '.join(f'{g.name}: {g.region} px' for g in groups)})"


@TRANSFORMS.register_module()
class PackPyramidInputs(BaseTransform):
    """Packs the regions of an image for collation.

    Required keys: ``regions``, ``view_seed``. Added keys: ``inputs``, a dict from group name to (R, H, W, 3) uint8 with
    ``seed`` int64; ``data_samples``, a ``DataSample`` with those of the meta keys that exist. All other keys are
    dropped.

    Args:
        meta_keys: Keys of ``results`` to keep.
    """

    def __init__(self, meta_keys: Sequence[str] = ("sample_idx", "img_path")) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs one image."""
        # Channels stay last: the device permutes them, which saves a copy of the regions here.
        inputs = {name: torch.from_numpy(region) for name, region in results["regions"].items()}
        inputs["seed"] = torch.tensor(results["view_seed"])
        sample = DataSample(metainfo={k: results[k] for k in self.meta_keys if k in results})
        return {"inputs": inputs, "data_samples": sample}


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Converts an (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 image to RGB; raises ValueError for any other."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.size == 0 or image.dtype != np.uint8:
        raise ValueError(
            f"img must be (H, W, 1, 3 or 4) uint8 and not empty, got {image.dtype} {image.shape}: "
            "load it with LoadRGBImage, which converts every format"
        )
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return image[..., :3]


def draw_crop(
    rng: random.Random, size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draws top, left, height and width of a crop, in pixels.

    ``size`` is the height and width of the image, ``area`` the range of the share of its area, and ``aspect`` that of
    width / height, whose logarithm is uniform. After ten draws that do not fit, returns the largest centred crop with
    an allowed aspect ratio.

    Source: torchvision's ``RandomResizedCrop.get_params``, with the same distribution.
    """
    height, width = size
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(10):
        target = height * width * (area[0] + (area[1] - area[0]) * rng.random())
        ratio = math.exp(log_low + (log_high - log_low) * rng.random())
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            # Only random() returns the same numbers in every version of Python.
            return int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1)), h, w
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


def resize(crop: np.ndarray, side: int) -> np.ndarray:
    """Resizes an (H, W, 3) uint8 crop to a contiguous square with ``side`` pixels, by a bilinear filter.

    The filter is antialiased if one direction shrinks by a factor of 1.5 or more: torch's uint8 kernel equals Pillow's
    bilinear filter up to rounding, in a fraction of the time. For smaller factors OpenCV's plain linear filter takes
    half of that time and is as close to a Lanczos filter (``tools/speed/decoding.py`` measures both).
    """
    if max(crop.shape[:2]) < 1.5 * side:
        return cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
    # Permuted with a batch axis, the result stays channels-last; without one, it would be planar and twice as slow.
    pixels = torch.from_numpy(np.ascontiguousarray(crop))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())
