"""What a loader's worker does of an image: ours, and what others do, to be timed beside it."""

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

from sspyr_mm.datasets import LoadRGBImage, PackPyramidInputs, PyramidViewTransform
from sspyr_mm.datasets.transforms.loading import decode_rgb
from sspyr_mm.pyramid import NUM_VIEWS, PyramidSpec, ScaleSpec


def decode(path: str) -> np.ndarray:
    """What all of them have to do.

    Raises:
        ValueError: If the file is no image.
    """
    image = decode_rgb(Path(path).read_bytes())
    if image is None:
        raise ValueError(f"{path} is not an image: remove it from --images")
    return image


class Ours:
    """The pipeline of the shipped configs: decoded, regions cut, packed.

    Args:
        spec: The pyramid.
    """

    def __init__(self, spec: PyramidSpec) -> None:
        self.steps: list[Callable[[dict[str, Any]], dict[str, Any] | None]] = [
            LoadRGBImage(),
            PyramidViewTransform(spec),
            PackPyramidInputs(),
        ]

    def __call__(self, path: str) -> dict[str, Any]:
        """Packed regions of one image."""
        results: dict[str, Any] = {"img_path": path}
        for step in self.steps:
            if (done := step(results)) is None:
                raise ValueError(f"{path} is not an image: remove it from --images")
            results = done
        return results


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
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __call__(self, patch: Image.Image) -> Tensor:
        """(3, P, P) float32."""
        patch = self.gray(self.jitter(self.flip(patch)))
        if random.random() < 0.5:
            patch = patch.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        return self.normalize(patch)


def mmpretrain_swav() -> Callable[[str], object]:
    """Mmpretrain's own pipeline for SwAV: eight views."""
    config = "mmpretrain::swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.py"
    steps = Config.fromfile(_file_of(config)).train_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        pipeline = [TRANSFORMS.build(step) for step in steps]

    def run(path: str) -> object:
        results: Any = {"img_path": path}
        for step in pipeline:
            results = step(results)
        return results

    return run


def _file_of(config: str) -> str:
    import mmpretrain

    return str(Path(mmpretrain.__file__).parent / ".mim/configs" / config.partition("::")[2])


def lightly_swav() -> Callable[[str], object] | None:
    """Lightly's pipeline for SwAV, eight views; None where lightly is not installed."""
    if importlib.util.find_spec("lightly") is None:
        return None
    from lightly.transforms import SwaVTransform

    transform = SwaVTransform()

    def run(path: str) -> object:
        with Image.open(path) as opened:
            return transform(opened.convert("RGB"))

    return run
