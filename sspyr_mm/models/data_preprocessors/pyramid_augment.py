"""Regions to patches, on the device: cells, crops, flip, colour, blur, normalisation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor

from sspyr_mm.models.data_preprocessors import photometric
from sspyr_mm.models.data_preprocessors.augment_params import (
    AugmentConfig,
    PatchParams,
    draw_params,
)
from sspyr_mm.models.data_preprocessors.photometric_cpu import augment_patch
from sspyr_mm.pyramid import GroupSpec, PyramidSpec


@MODELS.register_module()
class PyramidAugment(BaseDataPreprocessor):
    """Turns the regions of a batch into normalised patches, every patch with parameters of its own.

    Parameters are drawn on the host from the seed that travels with each image, so that the patches of an image are
    the same on one process or eight, before and after a restart, on CPU or GPU; nothing has to be saved. Because the
    host knows them, picking the patches an operation applies to costs no synchronisation with the device.

    Args:
        pyramid: Config of the pyramid, or a spec.
        mean: Per channel (RGB), in 0-255.
        std: Per channel (RGB), in 0-255.
        flip_prob: Probability of a horizontal flip.
        jitter_prob: Probability of colour jitter.
        jitter: Strengths of brightness, contrast, saturation (factor in [1 - s, 1 + s]) and hue (shift in
            [-s, s] turns).
        gray_prob: Probability of greyscale.
        blur_prob: Probability of Gaussian blur.
        blur_sigma: Least and greatest sigma, in pixels.
        non_blocking: Whether copies to the device may overlap with other work.

    Raises:
        ValueError: If a probability or strength is out of its range.

    Source: paper, section B ("the same set of image augmentation ... following SwAV"); operations as torchvision's.
    Deviation: blur is an exact Gaussian cut at 3 sigma, where the release's PIL approximates one by boxes.
    """

    def __init__(
        self,
        pyramid: PyramidSpec | Mapping[str, Any],
        *,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        flip_prob: float = 0.5,
        jitter_prob: float = 0.8,
        jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2),
        gray_prob: float = 0.2,
        blur_prob: float = 0.5,
        blur_sigma: Sequence[float] = (0.1, 2.0),
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        self.spec = PyramidSpec.from_config(pyramid)
        self.config = AugmentConfig(
            flip_prob=flip_prob,
            jitter_prob=jitter_prob,
            jitter=tuple(jitter),
            gray_prob=gray_prob,
            blur_prob=blur_prob,
            blur_sigma=tuple(blur_sigma),
        )
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) / 255, persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Augments one collated batch.

        Args:
            data: ``inputs``: per group's name, regions (B, R, H, W, 3) uint8, and ``seed``, (B,) int64 on the host;
                ``data_samples``: passed on. A plain tensor of ``inputs`` (N, 3, H, W) in 0-255 is only normalised.
            training: Not used: there is no other way to look at a pyramid.

        Returns:
            ``inputs``: per group's name, patches (V, B, M, 3, P, P) float32; ``data_samples``.
        """
        inputs = data["inputs"]
        if isinstance(inputs, Tensor):
            images = self.cast_data(inputs).float() / 255
            return {
                "inputs": (images - self.mean) / self.std,
                "data_samples": data.get("data_samples"),
            }
        seeds = inputs["seed"].tolist()
        params = draw_params(seeds, self.spec.groups, self.config)
        regions = self.cast_data({group.name: inputs[group.name] for group in self.spec.groups})
        patches = {
            g.name: self.augment(regions[g.name], g, params[g.name]) for g in self.spec.groups
        }
        return {"inputs": patches, "data_samples": data.get("data_samples")}

    @torch.no_grad()
    def augment(self, regions: Tensor, group: GroupSpec, params: PatchParams) -> Tensor:
        """Patches of one group.

        Args:
            regions: (B, R, H, W, 3) uint8, R being 1 where views share the region.
            group: The group.
            params: Parameters of its V * B * M patches, in this order.

        Returns:
            (V, B, M, 3, P, P) float32, normalised.
        """
        if regions.device.type == "cpu":
            patches = self._augment_on_cpu(regions, group, params)
        else:
            with torch.autocast(regions.device.type, enabled=False):
                patches = photometric.augment(cut_patches(regions, group, params), params)
                patches = (patches - self.mean) / self.std
        return patches.unflatten(0, (group.num_views, regions.shape[0], group.num_patches))

    def _augment_on_cpu(self, regions: Tensor, group: GroupSpec, params: PatchParams) -> Tensor:
        """Patches (N, 3, P, P), one after the other."""
        source = regions.numpy()
        patches = torch.empty(len(params.flip), 3, group.patch, group.patch)
        mean, std = self.mean.numpy(), self.std.numpy()
        places = place_patches(regions.shape[0], group, params)
        for row, (image, region, top, left) in enumerate(zip(*places, strict=True)):
            window = slice(top, top + group.patch), slice(left, left + group.patch)
            patch = augment_patch(source[image, region][window], params, row)
            out = patches[row].numpy()
            np.subtract(patch.transpose(2, 0, 1), mean, out=out)
            out /= std
        return patches


def place_patches(
    num_images: int, group: GroupSpec, params: PatchParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where patches lie.

    Args:
        num_images: B.
        group: The group; cell m lies in row ``m // grid`` and column ``m % grid``.
        params: Parameters of N = V * B * M patches.

    Returns:
        Image, region, top and left of each patch, (N,) int64.
    """
    shape = (group.num_views, num_images, group.num_patches)
    view, image, cell = (i.reshape(-1) for i in np.indices(shape))
    region = view if group.num_regions > 1 else np.zeros_like(view)
    top = cell // group.grid * group.cell + params.offset_y
    left = cell % group.grid * group.cell + params.offset_x
    return image, region, top, left


def cut_patches(regions: Tensor, group: GroupSpec, params: PatchParams) -> Tensor:
    """Crops one patch from every cell and flips it where its parameters say so, in one gather.

    Args:
        regions: (B, R, H, W, 3) uint8.
        group: The group.
        params: Parameters of N = V * B * M patches.

    Returns:
        (N, 3, P, P) float32 in [0, 1].
    """
    image, region, top, left = place_patches(regions.shape[0], group, params)
    along = np.arange(group.patch)
    columns = np.where(params.flip[:, None], along[::-1], along) + left[:, None]

    def index(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(regions.device, non_blocking=True)

    patches = regions[
        index(image)[:, None, None],
        index(region)[:, None, None],
        index(top[:, None] + along)[:, :, None],
        index(columns)[:, None, :],
    ]
    return (
        patches.permute(0, 3, 1, 2)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .div_(255)
    )
