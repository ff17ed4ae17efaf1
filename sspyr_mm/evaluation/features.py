"""Features of images from a frozen backbone."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.utils import track_iter_progress
from torch import Tensor

from sspyr_mm.datasets import LoadRGBImage
from sspyr_mm.models import SSPRL
from sspyr_mm.models.layers import pool


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to ``size * 256 / 224``, then the centre.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    scale = size * 256 / 224 / min(image.shape[:2])
    height, width = (max(size, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=method)
    top, left = (height - size) // 2, (width - size) // 2
    return resized[top : top + size, left : left + size]


def load_centre_crops(paths: Sequence[str], size: int) -> Tensor:
    """Decodes and crops images.

    Args:
        paths: N files.
        size: Side in pixels.

    Returns:
        (N, 3, size, size) uint8.

    Raises:
        UnreadableImageError: If one of them cannot be read: a probe cannot leave out what has a label.
    """
    load = LoadRGBImage(skip_broken=False)
    crops = np.empty((len(paths), size, size, 3), np.uint8)
    for crop, path in zip(crops, paths, strict=True):
        image = load({"img_path": path})["img"]
        crop[:] = centre_crop(image, size)
    return torch.from_numpy(crops).permute(0, 3, 1, 2)


@torch.inference_mode()
def extract_features(
    model: SSPRL,
    paths: Sequence[str],
    *,
    size: int,
    batch_size: int = 64,
    device: str = "cpu",
    progress: bool = False,
) -> Tensor:
    """Pooled features of the last stage, in evaluation mode.

    Args:
        model: Its backbone and its preprocessor's normalisation are used.
        paths: N files.
        size: Side of the centre crop in pixels.
        batch_size: Images at a time.
        device: Where to compute.
        progress: Whether to show a bar.

    Returns:
        (N, C) float32 on the CPU.

    Raises:
        ValueError: As :func:`load_centre_crops`.
    """
    model.eval().to(device)
    chunks = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
    features = []
    for chunk in track_iter_progress(chunks) if progress else chunks:
        inputs = model.data_preprocessor({"inputs": load_centre_crops(chunk, size)})["inputs"]
        features.append(pool(model.backbone(inputs)).float().cpu())
    return torch.cat(features)
