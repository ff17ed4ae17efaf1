"""Augmentation of regions to patches on the device: cells, crops, flip, colour, blur, normalisation."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from sspyr_mm.models.data_preprocessors import photometric
from sspyr_mm.models.data_preprocessors.augment_params import PatchParams, draw_cells, draw_params
from sspyr_mm.models.data_preprocessors.photometric_cpu import augment_patch
from sspyr_mm.models.data_preprocessors.region_ops import cut_cells, flip_boxes, paste
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.views import AugmentSpec, GroupSpec, ViewsSpec

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Per channel (RGB), in 0-255."""
IMAGENET_STD = (58.395, 57.12, 57.375)


@MODELS.register_module()
class PyramidAugment(BaseDataPreprocessor):
    """Converts the regions of a batch to normalised patches, each with its own parameters.

    Parameters are drawn on the host from the seed of each image, so that its patches are the same for any number of
    processes, after a restart, on CPU and GPU, without saved state. Since the host knows them, selecting the patches
    of an operation needs no synchronisation with the device.

    Args:
        pyramid: Config of the pyramid, or a spec. Either this or ``views`` is given.
        mean: Mean per channel (RGB), in 0-255.
        std: Standard deviation per channel (RGB), in 0-255.
        flip_prob: Probability of a horizontal flip.
        jitter_prob: Probability of colour jitter.
        jitter: Strengths of brightness, contrast, saturation (factor in [1 - s, 1 + s]) and hue (shift in
            [-s, s] turns).
        gray_prob: Probability of greyscale.
        blur_prob: Probability of Gaussian blur.
        blur_sigma: Least and greatest sigma, in pixels.
        solarize_prob: Probability of solarisation, which inverts values of at least half the maximum.
        views: Config of the views of a method without a pyramid, or a spec. Groups may change the numbers above.
        with_seeds: Whether the seeds of the images are part of the output.
        non_blocking: Whether copies to the device may overlap with other work.
        compiled: Whether ``torch.compile`` generates the GPU kernels, in the first step; unused on a CPU.

    Raises:
        ValueError: If a probability or strength is out of its range, or not one of pyramid and views is given.

    Source: paper, section B ("the same set of image augmentation ... following SwAV"); operations as torchvision's.
    Deviation: blur is an exact Gaussian cut at 3 sigma; PIL in the official code approximates it by boxes.
    """

    def __init__(
        self,
        pyramid: PyramidSpec | Mapping[str, Any] | None = None,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        flip_prob: float = 0.5,
        jitter_prob: float = 0.8,
        jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2),
        gray_prob: float = 0.2,
        blur_prob: float = 0.5,
        blur_sigma: Sequence[float] = (0.1, 2.0),
        solarize_prob: float = 0.0,
        views: ViewsSpec | Mapping[str, Any] | None = None,
        with_seeds: bool = False,
        non_blocking: bool = True,
        compiled: bool = False,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        if pyramid is not None and views is None:
            views = PyramidSpec.from_config(pyramid).views
        elif pyramid is not None or views is None:
            raise ValueError(f"PyramidAugment needs either pyramid or views, got pyramid={pyramid}, views={views}")
        self.views = ViewsSpec.from_config(views)
        self._augmented = [group.augmented for group in self.views.groups]
        self.config = AugmentSpec(
            flip_prob=flip_prob,
            jitter_prob=jitter_prob,
            jitter=tuple(jitter),
            gray_prob=gray_prob,
            blur_prob=blur_prob,
            blur_sigma=tuple(blur_sigma),
            solarize_prob=solarize_prob,
        )
        specs = [spec for group in self.views.groups for spec in group.augment_of(self.config)]
        self._max_sigma = max(spec.blur_sigma[1] for spec in specs)
        self.with_seeds = with_seeds
        self.compiled = compiled
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) / 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) / 255, persistent=False)

    @cached_property
    def operations(self) -> dict[str, photometric.Operation]:
        """Operations on patches, by name."""
        return photometric.operations(self._max_sigma, compiled=self.compiled)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled functions can't be pickled; they are recreated when needed.
        return {name: value for name, value in self.__dict__.items() if name != "operations"}

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Augments one collated batch.

        Args:
            data: ``inputs``: per group's name, regions (B, R, H, W, 3) uint8, and ``seed``, (B,) int64 on the host;
                ``data_samples``: passed on. A plain tensor of ``inputs`` (N, 3, H, W) in 0-255 is only normalised.
            training: Not used: augmentation is the same in evaluation.

        Returns:
            ``inputs``: per group's name, patches (V, B, M, 3, P, P) float32, and ``seed`` (B,) int64 on their device if
            ``with_seeds``; ``data_samples``.
        """
        inputs = data["inputs"]
        if isinstance(inputs, Tensor):
            images = self.cast_data(inputs).float() / 255
            return {"inputs": (images - self.mean) / self.std, "data_samples": data.get("data_samples")}
        seeds = inputs["seed"].tolist()
        params = draw_params(seeds, self._augmented, self.config)
        regions = self.cast_data({name: x for name, x in inputs.items() if name != "seed"})
        for group in self.views.groups:
            if group.paste:
                regions[group.name] = paste(regions[group.name], regions[f"{group.name}_boxes"])
        on_cpu = self.mean.device.type == "cpu"
        patches = (self.augment_one_by_one if on_cpu else self.augment_in_batches)(regions, params)
        for group in self.views.groups:
            if group.jigsaw:
                top, left = move_together(draw_cells(seeds, group), self.mean.device)
                patches[group.name] = cut_cells(patches[group.name], top, left, group)
            if (boxes := regions.get(f"{group.name}_boxes")) is not None:
                flip = move_together(params[group.name].flip.astype(np.int64), boxes.device)
                patches[f"{group.name}_boxes"] = flip_boxes(boxes.transpose(0, 1), flip.bool(), group.region)
        if self.with_seeds:
            patches["seed"] = self.cast_data(inputs["seed"])
        return {"inputs": patches, "data_samples": data.get("data_samples")}

    @torch.no_grad()
    def augment_in_batches(self, regions: Mapping[str, Tensor], params: Mapping[str, PatchParams]) -> dict[str, Tensor]:
        """Augments all groups by operation, each on all its patches at once, which is fast on GPUs.

        Args:
            regions: Per group's name, (B, R, H, W, 3) uint8, R being 1 where views share the region.
            params: Per group's name, parameters of its V * B * M patches, in this order.

        Returns:
            Per group's name, (V, B, M, 3, P, P) float32, normalised.
        """
        num_images = len(regions[self._augmented[0].name])
        chosen = {
            g.name: (list_pixels(num_images, g, params[g.name]), photometric.list_steps(params[g.name]))
            for g in self._augmented
        }
        patches = {}
        with torch.autocast(self.mean.device.type, enabled=False):
            chosen = move_together(chosen, self.mean.device)
            for group in self._augmented:
                pixels, steps = chosen[group.name]
                cut = cut_patches(regions[group.name], pixels)
                done = photometric.augment(cut, steps, self.operations)
                shape = (group.num_views, num_images, group.num_patches)
                patches[group.name] = done.sub_(self.mean).div_(self.std).unflatten(0, shape)
        return patches

    @torch.no_grad()
    def augment_one_by_one(self, regions: Mapping[str, Tensor], params: Mapping[str, PatchParams]) -> dict[str, Tensor]:
        """Like :meth:`augment_in_batches`, but one patch at a time, which is fast in the cache of a CPU."""
        return {
            g.name: self._augment_on_cpu(regions[g.name], g, params[g.name]).unflatten(
                0, (g.num_views, len(regions[g.name]), g.num_patches)
            )
            for g in self._augmented
        }

    def _augment_on_cpu(self, regions: Tensor, group: GroupSpec, params: PatchParams) -> Tensor:
        """Returns patches (N, 3, P, P), computed one by one."""
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
    """Computes the positions of patches.

    Args:
        num_images: B.
        group: Group; cell m is in row ``m // grid`` and column ``m % grid``.
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


def list_pixels(
    num_images: int, group: GroupSpec, params: PatchParams
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lists the pixels of the regions that become patches: one crop per cell, flipped according to its parameters.

    Args:
        num_images: B.
        group: The group.
        params: Parameters of N = V * B * M patches.

    Returns:
        Image (N, 1, 1), region (N, 1, 1), rows (N, P, 1) and columns (N, 1, P), int64.
    """
    image, region, top, left = place_patches(num_images, group, params)
    along = np.arange(group.patch)
    columns = np.where(params.flip[:, None], along[::-1], along) + left[:, None]
    return (image[:, None, None], region[:, None, None], (top[:, None] + along)[:, :, None], columns[:, None, :])


def cut_patches(regions: Tensor, pixels: Sequence[Tensor]) -> Tensor:
    """Cuts patches in one gather.

    Args:
        regions: (B, R, H, W, 3) uint8.
        pixels: Output of :func:`list_pixels`, on the regions' device.

    Returns:
        (N, 3, P, P) float32 in [0, 1].
    """
    patches = regions[tuple(pixels)].permute(0, 3, 1, 2)
    return patches.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def move_together(tree: Any, device: torch.device) -> Any:
    """Moves many small arrays in two copies: one of indices, one of parameters.

    Args:
        tree: Any nesting of tuples, lists, dicts and :class:`photometric.Step` with arrays, int64 or float32.
        device: Target device.

    Returns:
        The same nesting with tensors.
    """
    leaves, form = tree_flatten(tree)
    for dtype in (np.int64, np.float32):
        places = [k for k, x in enumerate(leaves) if isinstance(x, np.ndarray) and x.dtype == dtype]
        if not places:
            continue
        arrays = [leaves[k] for k in places]
        packed = torch.from_numpy(np.concatenate([x.ravel() for x in arrays]))
        if device.type == "cuda":
            packed = packed.pin_memory()
        parts = packed.to(device, non_blocking=True).split([x.size for x in arrays])
        for place, array, part in zip(places, arrays, parts, strict=True):
            leaves[place] = part.view(array.shape)
    return tree_unflatten(leaves, form)
