"""Pipelines from a file to views: that of the shipped configs, and one with Pillow for the same views."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image, to_tensor

from sspyr_mm.datasets import LoadRGBImage, PackPyramidInputs, PyramidViewTransform
from sspyr_mm.models.data_preprocessors.pyramid_augment import IMAGENET_MEAN, IMAGENET_STD
from sspyr_mm.pyramid import NUM_VIEWS, PyramidSpec, ScaleSpec

__all__ = ["PillowAugment", "PillowPipeline", "PyramidPipeline", "collate"]


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


class PillowPipeline:
    """The same views made in the worker, patch by patch with Pillow and torchvision, as the official code does.

    A region that the views share becomes a tensor, and each of its cells an image again. Written for comparison, from
    a description of the official code. Multi-crops are ignored.
    """

    def __init__(self, spec: PyramidSpec) -> None:
        self.spec = spec
        self.augment = PillowAugment()

    def __call__(self, path: str) -> list[Tensor]:
        """Returns all patches of one image: by scale, then view, then cell."""
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        return [patch for scale in self.spec.scales for patch in self._patches(image, scale)]

    def _patches(self, image: Image.Image, scale: ScaleSpec) -> list[Tensor]:
        cut = transforms.RandomResizedCrop(scale.region, scale.area, scale.aspect)
        if scale.num_regions == NUM_VIEWS and scale.grid == 1:
            return [self.augment(cut(image)) for _ in range(NUM_VIEWS)]
        crop, side = transforms.RandomCrop(scale.patch), scale.cell
        regions = [to_tensor(cut(image)) for _ in range(scale.num_regions)]
        corners = [(y * side, x * side) for y in range(scale.grid) for x in range(scale.grid)]
        return [
            self.augment(crop(to_pil_image(region[:, y : y + side, x : x + side])))
            for region in regions * (NUM_VIEWS // scale.num_regions)
            for y, x in corners
        ]


class PillowAugment:
    """Flip, colour jitter, grayscale, blur and normalisation of one patch with Pillow."""

    def __init__(self) -> None:
        self.flip = transforms.RandomHorizontalFlip(0.5)
        self.jitter = transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)
        self.gray = transforms.RandomGrayscale(0.2)
        mean, std = ([value / 255 for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __call__(self, patch: Image.Image) -> Tensor:
        """Returns (3, P, P) float32."""
        patch = self.gray(self.jitter(self.flip(patch)))
        if random.random() < 0.5:
            patch = patch.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        return self.normalize(patch)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stacks the regions of several images, as :class:`PyramidPipeline` returns them."""
    return {"inputs": default_collate([sample["inputs"] for sample in samples])}
