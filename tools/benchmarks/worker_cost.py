"""What a loader's worker spends on an image: ``python tools/benchmarks/worker_cost.py [--images DIR]``.

Three things are timed in turn, a few images each, in one process on one core, so that a busy machine slows all of them
alike: decoding alone; ours (decode, cut regions, pack; colours and blur are the device's work); and a plain pipeline
that does everything in the worker, patch by patch with Pillow. Figures are medians of CPU time; ratios are what to
compare.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms

from sspyr_mm.datasets import (
    LoadRGBImage,
    PackPyramidInputs,
    PyramidViewTransform,
    UnlabelledImages,
)
from sspyr_mm.datasets.transforms.loading import decode_rgb
from sspyr_mm.pyramid import NUM_VIEWS, PyramidSpec, ScaleSpec

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_PYRAMID = ROOT / "configs/_base_/pyramids/three_scales.py"


class PlainPipeline:
    """The same views by torchvision's transforms on Pillow images, every patch for itself.

    Args:
        spec: The pyramid, without multi-crops.
    """

    def __init__(self, spec: PyramidSpec) -> None:
        self.spec = spec
        self.flip = transforms.RandomHorizontalFlip(0.5)
        self.jitter = transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8)
        self.gray = transforms.RandomGrayscale(0.2)
        self.normalize = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __call__(self, path: str) -> list[Tensor]:
        """All patches of one image: per scale, per view, per cell."""
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        return [patch for scale in self.spec.scales for patch in self._patches(image, scale)]

    def _patches(self, image: Image.Image, scale: ScaleSpec) -> list[Tensor]:
        cut = transforms.RandomResizedCrop(scale.region, scale.area, scale.aspect)
        regions = [cut(image) for _ in range(scale.num_regions)] * (NUM_VIEWS // scale.num_regions)
        crop = transforms.RandomCrop(scale.patch)
        side = scale.cell
        corners = [(x * side, y * side) for y in range(scale.grid) for x in range(scale.grid)]
        cells = (r.crop((x, y, x + side, y + side)) for r in regions for x, y in corners)
        return [self._augment(crop(cell)) for cell in cells]

    def _augment(self, patch: Image.Image) -> Tensor:
        patch = self.gray(self.jitter(self.flip(patch)))
        if random.random() < 0.5:
            patch = patch.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        return self.normalize(patch)


class Ours:
    """The pipeline of the shipped configs.

    Args:
        spec: The pyramid.
    """

    def __init__(self, spec: PyramidSpec) -> None:
        self.steps = [LoadRGBImage(), PyramidViewTransform(spec), PackPyramidInputs()]

    def __call__(self, path: str) -> dict:
        """Packed regions of one image."""
        results = {"img_path": path}
        for step in self.steps:
            results = step(results)
        return results


def decode(path: str) -> np.ndarray:
    """What both have to do in any case."""
    image = decode_rgb(Path(path).read_bytes())
    if image is None:
        raise ValueError(f"{path} is not an image: remove it from --images")
    return image


def make_images(folder: Path, num_images: int) -> list[str]:
    """Writes 640x480 JPEGs: noise of all sizes over a gradient, quality 90, about as many bytes as COCO's."""
    rng = np.random.default_rng(0)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
    quality += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    paths = []
    for index in range(num_images):
        image = np.linspace(rng.uniform(0, 120, 3), rng.uniform(80, 255, 3), 640)[None]
        image = np.repeat(image, 480, axis=0).astype(np.float32)
        for octave in range(2, 11):
            side = 2**octave
            coarse = rng.normal(0, 30 * 2 ** (-0.25 * octave), (side * 3 // 4, side, 1))
            coarse = coarse + rng.normal(0, 60 * 2 ** (-0.8 * octave), (side * 3 // 4, side, 3))
            image += cv2.resize(
                coarse.astype(np.float32), (640, 480), interpolation=cv2.INTER_CUBIC
            )
        path = folder / f"{index:04}.jpg"
        cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), quality)
        paths.append(str(path))
    return paths


def measure(
    pipelines: dict[str, Callable[[str], object]], paths: Sequence[str], *, block: int = 8
) -> dict[str, float]:
    """Median CPU milliseconds per image.

    Args:
        pipelines: What is timed, by name.
        paths: Images.
        block: Images a pipeline does in a row before the next one does the same. It does the first of them twice, once
            without the clock: what another pipeline left behind in caches and allocator is no part of its cost.
    """
    spent: dict[str, list[float]] = {name: [] for name in pipelines}
    for first in range(0, len(paths), block):
        for name, pipeline in pipelines.items():
            pipeline(paths[first])
            for path in paths[first : first + block]:
                start = time.process_time()
                pipeline(path)
                spent[name].append(1e3 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in spent.items()}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", metavar="DIR", help="use these (default: generated 640x480)")
    parser.add_argument("--num-images", type=int, default=40, help="how many of them (default: 40)")
    parser.add_argument(
        "--size", metavar="WxH", help="only images of this size, such as 640x480, either way up"
    )
    parser.add_argument("--pyramid", default=DEFAULT_PYRAMID, help="config with model.pyramid")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(arguments)


def find_images(folder: str, num_images: int, size: str | None) -> list[str]:
    dataset = UnlabelledImages(folder)
    paths = [dataset.get_data_info(i)["img_path"] for i in range(len(dataset))]
    if size is not None:
        wanted = sorted(int(side) for side in size.split("x"))
        paths = [path for path in paths if sorted(Image.open(path).size) == wanted]
    if not paths:
        raise SystemExit(f"No image of {size} in {folder}: leave --size out or give other images")
    return paths[:num_images]


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    spec = PyramidSpec.from_config(Config.fromfile(args.pyramid).model.pyramid)
    pipelines = {"decode": decode, "ours": Ours(spec), "plain": PlainPipeline(spec)}
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            paths = make_images(Path(folder), args.num_images)
        else:
            paths = find_images(args.images, args.num_images, args.size)
        medians = measure(pipelines, paths)
    ratio = medians["plain"] / medians["ours"]
    if args.json:
        print(json.dumps(dict(num_images=len(paths), ms=medians, plain_over_ours=ratio)))
        return
    print(f"{len(paths)} images, median CPU time of one core per image")
    print(f"{'':20}{'ms':>8}{'x ours':>9}")
    for name, value in medians.items():
        print(f"{name:20}{value:8.2f}{value / medians['ours']:9.2f}")


if __name__ == "__main__":
    main()
