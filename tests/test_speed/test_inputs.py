"""Images to measure with, and the pipeline from a file to regions."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.inputs import PyramidPipeline, find_images, make_images

PYRAMID = dict(
    s0=dict(region=32, patch=32, num_prototypes=5, alpha=1.0, area=(0.14, 1.0)),
    s1=dict(region=45, grid=2, patch=16, num_prototypes=4, alpha=0.25, beta=0.25),
    s2=dict(region=50, grid=3, patch=12, num_prototypes=3, alpha=0.5, beta=0.75),
)
SPEC = PyramidSpec.from_config(PYRAMID)


def test_regions_of_an_image(tmp_path):
    (path,) = make_images(tmp_path, 1)
    regions = PyramidPipeline(SPEC)(path)["inputs"]
    assert {k: tuple(v.shape) for k, v in regions.items() if k != "seed"} == dict(
        s0=(2, 32, 32, 3), s1=(1, 45, 45, 3), s2=(1, 50, 50, 3)
    )


def test_given_images_are_found(tmp_path):
    for index in range(3):
        Image.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(tmp_path / f"{index}.jpg")
    assert len(find_images(str(tmp_path), 2)) == 2
    with pytest.raises((ValueError, FileNotFoundError), match="nothing"):
        find_images(str(tmp_path / "nothing"), 2)


def test_generated_images_are_as_large_as_coco_images(tmp_path):
    paths = make_images(tmp_path, 2)
    assert [Image.open(path).size for path in paths] == [(640, 480)] * 2
    sizes = [(tmp_path / name).stat().st_size for name in ("0000.jpg", "0001.jpg")]
    assert all(80e3 < size < 250e3 for size in sizes) and sizes[0] != sizes[1]


def test_large_photographs_are_decoded_as_in_training(tmp_path):
    """At a quarter of their size, which is enough for all regions."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = str(tmp_path / "large.jpg")
    Image.fromarray(pixels).resize((4000, 3000)).save(path)
    spec = PyramidSpec.from_config(Config.fromfile("configs/ssprl/r50_coco_200e.py").model.pyramid)
    assert PyramidPipeline(spec).decode(path).shape == (750, 1000, 3)
