"""Features of centre crops from a frozen backbone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import sspyr_mm.datasets  # noqa: F401  # registers what the pipeline names
from sspyr_mm.benchmarks.classification.encoder import FrozenEncoder
from sspyr_mm.datasets.workers import answer_to_parent_only

BATCH = 64


def centre_crop_pipeline(size: int, decoding: Mapping[str, Any] | None = None) -> list[dict]:
    """The test transform: shorter side to ``size * 256 / 224``, then the centre.

    Args:
        size: Side of the crop in pixels.
        decoding: Options of ``LoadRGBImage``.

    Returns:
        Configs of transforms, from ``img_path`` to ``img`` (size, size, 3) uint8 RGB.
    """
    return [
        dict(type="LoadRGBImage", skip_broken=False, **(decoding or {})),
        dict(
            type="ResizeEdge",
            scale=round(size * 256 / 224),
            edge="short",
            backend="pillow",  # antialiased, as torchvision's Resize
            interpolation="bilinear",
        ),
        dict(type="CenterCrop", crop_size=size),
    ]


class CentreCrops(Dataset):
    """Decoded and cropped images.

    Args:
        paths: N files.
        size: Side of the crop in pixels.
        decoding: Options of ``LoadRGBImage``.
    """

    def __init__(
        self, paths: Sequence[str], size: int, decoding: Mapping[str, Any] | None = None
    ) -> None:
        init_default_scope("mmpretrain")
        self.paths = list(paths)
        self.pipeline = Compose(centre_crop_pipeline(size, decoding))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """(3, size, size) uint8.

        Raises:
            UnreadableImageError: If the file cannot be read as an image: a labelled image is not left out.
        """
        image = self.pipeline({"img_path": self.paths[index]})["img"]
        return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def crop_loader(
    encoder: FrozenEncoder,
    paths: Sequence[str],
    batches: Iterable[list[int]],
    *,
    size: int,
    num_workers: int,
) -> DataLoader:
    """Loads the centre crops that an encoder takes.

    Args:
        encoder: Frozen network; images are decoded as in its training.
        paths: N files.
        batches: Indices of each batch.
        size: Side of the crop in pixels.
        num_workers: Processes that decode.

    Returns:
        A loader of (B, 3, size, size) uint8.
    """
    return DataLoader(
        CentreCrops(paths, size, encoder.decoding),
        batch_sampler=batches,
        num_workers=num_workers,
        worker_init_fn=answer_to_parent_only if num_workers else None,
    )


def extract_features(
    encoder: FrozenEncoder,
    paths: Sequence[str],
    *,
    size: int,
    device: str = "cpu",
    num_workers: int = 0,
) -> Tensor:
    """Computes the features of images.

    Args:
        encoder: Frozen network.
        paths: N files.
        size: Side of the centre crop in pixels.
        device: Where to compute.
        num_workers: Processes that decode.

    Returns:
        (N, C) float32 on the CPU.

    Raises:
        UnreadableImageError: If a file cannot be read as an image.
    """
    encoder = encoder.to(device)
    indices = range(len(paths))
    batches = [list(indices[start : start + BATCH]) for start in indices[::BATCH]]
    loader = crop_loader(encoder, paths, batches, size=size, num_workers=num_workers)
    return torch.cat([encoder(images.to(device)).cpu() for images in loader])
