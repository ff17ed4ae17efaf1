"""Image to regions: all that a loader's worker does beyond decoding."""

import math
import random
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from torch.nn import functional as F

from sspyr_mm.datasets.transforms.sample_seed import SampleSeed
from sspyr_mm.pyramid import PyramidSpec

_ANTIALIASED_FROM = 1.5
"""How many pixels become one where antialiasing begins."""


@TRANSFORMS.register_module()
class PyramidViewTransform(SampleSeed, BaseTransform):
    """Cuts the regions of every scale out of a decoded image, as uint8; cells, patches and colours come on the device.

    Where a scale shares its region between the views, one region is cut and both views take their patches from it, so
    that patch m of V and patch m of V' show the same cell.

    Random numbers depend on the run's seed, the epoch and the sample alone: the same views come out whatever the
    number of workers or processes, and after a restart. :class:`ViewSeedHook` tells seed and epoch; where nobody does
    (in a notebook, say), they are drawn from torch's generator of the process, which a ``DataLoader`` seeds per worker.

    Required keys: ``img`` (H, W, 3) uint8, or (H, W); ``sample_idx`` once an epoch is set. Modified keys: none; ``img``
    is removed. Added keys: ``regions``, per group's name (R, region, region, 3) uint8, contiguous; ``view_seed``, the
    int that all that follows is drawn from.

    Args:
        pyramid: Config of the pyramid, or a spec. May be left out where :class:`PyramidLinkHook`
            hands over the model's, which keeps the numbers of a config in one place.

    Source: paper, section B; released code, ``multicropdataset.py`` (geometry).
    Deviation: the release uses Pillow's bilinear filter for all sizes; see :func:`resize`.
    """

    def __init__(self, pyramid: PyramidSpec | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._spec = None if pyramid is None else PyramidSpec.from_config(pyramid)

    @property
    def spec(self) -> PyramidSpec:
        """The pyramid.

        Raises:
            ValueError: If none was given.
        """
        if self._spec is None:
            raise ValueError(
                "PyramidViewTransform has no pyramid: give pyramid=dict(s0=...), or keep PyramidLinkHook in "
                "the config, which hands over model.pyramid"
            )
        return self._spec

    def set_pyramid(self, spec: PyramidSpec) -> None:
        """Takes over the model's pyramid.

        Args:
            spec: The model's.

        Raises:
            ValueError: If this transform was given another one.
        """
        if self._spec is not None and self._spec != spec:
            raise ValueError(
                f"PyramidViewTransform and the model have different pyramids, {self._spec} and {spec}: "
                "remove the transform's `pyramid`"
            )
        self._spec = spec

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Cuts one image.

        Args:
            results: With ``img``; smaller images than the regions are enlarged.

        Returns:
            ``results`` with ``regions`` and ``view_seed`` in place of ``img``.

        Raises:
            ValueError: If the image is empty or not uint8.
        """
        image = as_rgb(results.pop("img"))
        view_seed = self.sample_seed(results)
        if view_seed is None:
            view_seed = int(torch.randint(2**62, ()))
        # Not numpy's: the device draws from that by the same seed, and a single number costs ten times as much there.
        rng = random.Random(view_seed)
        regions = {}
        for group in self.spec.groups:
            crops = []
            for _ in range(group.num_regions):
                top, left, height, width = draw_crop(rng, image.shape[:2], group.area, group.scale.aspect)
                crops.append(resize(image[top : top + height, left : left + width], group.region))
            # One crop, the case of a shared region, is not copied.
            regions[group.name] = np.stack(crops) if len(crops) > 1 else crops[0][None]
        return {**results, "regions": regions, "view_seed": view_seed}

    def __repr__(self) -> str:
        groups = self._spec.groups if self._spec else ()
        return f"{type(self).__name__}({', '.join(f'{g.name}: {g.region} px' for g in groups)})"


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Checks a decoded image and gives greyscale three channels.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8; alpha is dropped.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: If the shape or type is another one.
    """
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
    rng: random.Random,
    size: tuple[int, int],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int, int, int]:
    """A crop of random area and aspect ratio.

    Args:
        rng: Source of randomness.
        size: Height and width of the image, in pixels.
        area: Least and greatest share of the image's area.
        aspect: Least and greatest width / height; its logarithm is uniform.

    Returns:
        Top, left, height and width, in pixels. After ten draws that do not fit, the largest centred crop whose aspect
        ratio is allowed.

    Source: torchvision's ``RandomResizedCrop.get_params``, whose distribution it has.
    """
    height, width = size
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(10):
        target = height * width * (area[0] + (area[1] - area[0]) * rng.random())
        ratio = math.exp(log_low + (log_high - log_low) * rng.random())
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            # Only random() gives the same numbers in every version of Python.
            return int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1)), h, w
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


def resize(crop: np.ndarray, side: int) -> np.ndarray:
    """Resizes a crop to a square, bilinear; antialiased where 3 pixels or more become 2 in either direction.

    torch's uint8 kernel computes what Pillow's bilinear filter does, to a rounding, in a fraction of its time. Where
    little is left out, OpenCV's plain linear filter takes half of that and is as near to a Lanczos filter
    (``tools/speed/decoding.py`` measures both).

    Args:
        crop: (H, W, 3) uint8, also a window of a larger image.
        side: Height and width of the result, in pixels.

    Returns:
        (side, side, 3) uint8, contiguous.
    """
    if max(crop.shape[:2]) < _ANTIALIASED_FROM * side:
        return cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
    # Permuted with its batch axis, the result has channels last, too; without, it would be planar and twice as slow.
    pixels = torch.from_numpy(np.ascontiguousarray(crop))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())
