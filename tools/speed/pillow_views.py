"""The views of our pipeline made with Pillow, patch by patch, for comparison."""

import random
from collections.abc import Callable

from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image, to_tensor

from sspyr_mm.models.data_preprocessors.pyramid_augment import IMAGENET_MEAN, IMAGENET_STD
from sspyr_mm.pyramid import NUM_VIEWS, PyramidSpec, ScaleSpec


class PillowPipeline:
    """The same views made in the worker, patch by patch with Pillow and torchvision, as the official code does.

    A region that the views share becomes a tensor, and each of its cells an image again. Written for comparison, from
    a description of the official code. Multi-crops are ignored.
    """

    def __init__(self, spec: PyramidSpec) -> None:
        self.spec = spec
        self.augment = pillow_augment()

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


def pillow_augment() -> Callable[[Image.Image], Tensor]:
    """Returns flip, colour jitter, grayscale, blur and normalisation of a patch with Pillow, as (3, P, P) float32."""
    mean, std = ([value / 255 for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
    steps = [
        transforms.RandomHorizontalFlip(0.5),
        transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
        transforms.RandomGrayscale(0.2),
        transforms.RandomApply([_blur], 0.5),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    return transforms.Compose(steps)


def _blur(patch: Image.Image) -> Image.Image:
    return patch.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
