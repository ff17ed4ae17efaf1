"""The operations of :mod:`photometric` on a CPU, one patch at a time with OpenCV, four times as fast as batches.

A patch is (P, P, 3) float32 RGB in [0, 1]. Results equal those of :mod:`photometric` up to rounding.
"""

import math

import cv2
import numpy as np

from sspyr_mm.models.data_preprocessors.augment_params import PatchParams
from sspyr_mm.models.data_preprocessors.photometric import LUMA

_LUMA = np.array(LUMA, np.float32)
_TO_GRAY = np.tile(_LUMA, (3, 1))
_TURN = 360.0
"""OpenCV's unit of hue."""


def augment_patch(pixels: np.ndarray, params: PatchParams, row: int) -> np.ndarray:
    """Applies flip, colour jitter in the patch's own order, greyscale, blur and solarisation.

    Args:
        pixels: (P, P, 3) uint8; may be a window of a larger image.
        params: Parameters of all patches.
        row: Index of the patch.

    Returns:
        (P, P, 3) float32 in [0, 1].
    """
    if params.flip[row]:
        pixels = pixels[:, ::-1]
    patch = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    if params.jitter[row]:
        for op in params.order[row]:
            patch = _JITTER[op](patch, float(params.factors[row, op]))
    if params.gray[row]:
        patch = cv2.transform(patch, _TO_GRAY)
    if params.blur[row]:
        patch = _blur(patch, float(params.sigma[row]), math.ceil(3 * params.max_sigma))
    if params.solarize[row]:
        patch = np.where(patch >= 0.5, 1 - patch, patch)
    return patch


def _clip(patch: np.ndarray) -> np.ndarray:
    return np.clip(patch, 0, 1, out=patch)


def _brightness(patch: np.ndarray, factor: float) -> np.ndarray:
    return _clip(np.multiply(patch, np.float32(factor), out=patch))


def _contrast(patch: np.ndarray, factor: float) -> np.ndarray:
    # The mean of the luma is the luma of the means.
    mean = float(np.dot(np.asarray(cv2.mean(patch))[:3], _LUMA))
    patch = np.multiply(patch, np.float32(factor), out=patch)
    return _clip(np.add(patch, np.float32((1 - factor) * mean), out=patch))


def _saturation(patch: np.ndarray, factor: float) -> np.ndarray:
    blend = factor * np.eye(3, dtype=np.float32) + (1 - factor) * _TO_GRAY
    return _clip(cv2.transform(patch, blend))


def _hue(patch: np.ndarray, shift: float) -> np.ndarray:
    hsv = cv2.cvtColor(patch, cv2.COLOR_RGB2HSV)
    turned = hsv[..., 0] + np.float32(_TURN * (shift % 1))
    hsv[..., 0] = np.where(turned >= _TURN, turned - np.float32(_TURN), turned)
    return _clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=patch))


_JITTER = (_brightness, _contrast, _saturation, _hue)


def _blur(patch: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    radius = min(radius, min(patch.shape[:2]) - 1)
    window = (2 * radius + 1, 2 * radius + 1)
    return cv2.GaussianBlur(patch, window, sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101)
