"""Random crops and their sizes."""

import math
import random

import cv2
import numpy as np
import torch
from torch.nn import functional as F


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
    return largest_crop(size, aspect)


def largest_crop(size: tuple[int, int], aspect: tuple[float, float]) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of the largest centred crop with an allowed ratio of width to height."""
    height, width = size
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


def resize(crop: np.ndarray, height: int, width: int | None = None) -> np.ndarray:
    """Resizes an (H, W, 3) uint8 crop to a contiguous (height, width, 3), by a bilinear filter; default: a square.

    The filter is antialiased if one direction shrinks by a factor of 1.5 or more: torch's uint8 kernel equals Pillow's
    bilinear filter up to rounding, in a fraction of the time. For smaller factors OpenCV's plain linear filter takes
    half of that time and is as close to a Lanczos filter (``tools/speed/decoding.py`` measures both).
    """
    width = width or height
    if crop.shape[0] < 1.5 * height and crop.shape[1] < 1.5 * width:
        return cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)
    # Permuted with a batch axis, the result stays channels-last; without one, it would be planar and twice as slow.
    pixels = torch.from_numpy(np.ascontiguousarray(crop))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())
