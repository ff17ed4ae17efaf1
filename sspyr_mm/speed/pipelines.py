"""What a loader's worker does of an image: ours, and a plain one that is timed beside it."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from sspyr_mm.datasets import LoadRGBImage, PackPyramidInputs, PyramidViewTransform
from sspyr_mm.models.data_preprocessors.pyramid_augment import IMAGENET_MEAN, IMAGENET_STD
from sspyr_mm.pyramid import NUM_VIEWS, PyramidSpec, ScaleSpec


class Ours:
    """The pipeline of the shipped configs: decoded, regions cut, packed.

    Args:
        spec: The pyramid.
    """

    def __init__(self, spec: PyramidSpec) -> None:
        load = LoadRGBImage(skip_broken=False)
        load.set_pyramid(spec)  # as PyramidLinkHook does it
        self.steps: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
            load,
            PyramidViewTransform(spec),
            PackPyramidInputs(),
        ]

    def decode(self, path: str) -> np.ndarray:
        """The first step alone, which all pipelines have to take; (H, W, 3) uint8."""
        return self.steps[0]({"img_path": path})["img"]

    def __call__(self, path: str) -> dict[str, Any]:
        """Packed regions of one image."""
        results: dict[str, Any] = {"img_path": path}
        for step in self.steps:
            results = step(results)
        return results


class PipelineOutputs(Dataset):
    """A pipeline's output for images, over and over.

    Args:
        pipeline: Path of an image to whatever.
        paths: Images.
        length: Of an epoch.
    """

    def __init__(
        self, pipeline: Callable[[str], object], paths: Sequence[str], length: int
    ) -> None:
        self.pipeline, self.paths, self.length = pipeline, paths, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> object:
        return self.pipeline(self.paths[index % len(self.paths)])


class PlainPipeline:
    """The same views in the worker, patch by patch with Pillow and torchvision, as the authors' released code does.

    A region that views share becomes a tensor, of which every cell becomes a picture again. Written for comparison,
    from the description of what theirs does.

    Args:
        spec: The pyramid, without multi-crops.
    """

    def __init__(self, spec: PyramidSpec) -> None:
        self.spec = spec
        self.to_tensor = transforms.ToTensor()
        self.to_picture = transforms.ToPILImage()
        self.photometric = PlainPhotometric()

    def __call__(self, path: str) -> list[Tensor]:
        """All patches of one image: per scale, per view, per cell."""
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        return [patch for scale in self.spec.scales for patch in self._patches(image, scale)]

    def _patches(self, image: Image.Image, scale: ScaleSpec) -> list[Tensor]:
        cut = transforms.RandomResizedCrop(scale.region, scale.area, scale.aspect)
        if scale.num_regions == NUM_VIEWS and scale.grid == 1:
            return [self.photometric(cut(image)) for _ in range(NUM_VIEWS)]
        crop, side = transforms.RandomCrop(scale.patch), scale.cell
        regions = [self.to_tensor(cut(image)) for _ in range(scale.num_regions)]
        corners = [(y * side, x * side) for y in range(scale.grid) for x in range(scale.grid)]
        return [
            self.photometric(crop(self.to_picture(region[:, y : y + side, x : x + side])))
            for region in regions * (NUM_VIEWS // scale.num_regions)
            for y, x in corners
        ]


class PlainPhotometric:
    """Flip, colours, blur and normalisation of one patch, with Pillow."""

    def __init__(self) -> None:
        self.flip = transforms.RandomHorizontalFlip(0.5)
        self.jitter = transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)
        self.gray = transforms.RandomGrayscale(0.2)
        self.normalize = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Normalize(
                    [v / 255 for v in IMAGENET_MEAN], [v / 255 for v in IMAGENET_STD]
                ),
            ]
        )

    def __call__(self, patch: Image.Image) -> Tensor:
        """(3, P, P) float32."""
        patch = self.gray(self.jitter(self.flip(patch)))
        if random.random() < 0.5:
            patch = patch.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        return self.normalize(patch)
