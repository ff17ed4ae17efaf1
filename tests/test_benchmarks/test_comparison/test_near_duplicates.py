"""Near-duplicates of images: altered copies are found, other images are not."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits

from sspyr_mm.benchmarks.comparison.near_duplicates import MAX_DISTANCE, find_near_duplicates, image_hashes
from sspyr_mm.datasets.toy_scenes.scene import draw_scene

CHANGES = {
    "recompressed": lambda image: image,
    "smaller": lambda image: image.resize((70, 70)),
    "mirrored": ImageOps.mirror,
    "grey": lambda image: ImageOps.grayscale(image),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "squeezed": lambda image: image.resize((96, 80)),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    paths = []
    for seed in range(24):
        paths.append(str(folder / f"{seed}.png"))
        Image.fromarray(draw_scene(np.random.default_rng(seed), 96).image).save(paths[-1])
    return paths


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found(scenes, tmp_path, change):
    copies = []
    for number in (3, 17):
        copies.append(str(tmp_path / f"{number}.jpg"))
        CHANGES[change](Image.open(scenes[number]).convert("RGB")).save(copies[-1], quality=60)
    found = find_near_duplicates(scenes[:20], [scenes[20], copies[1], scenes[21], copies[0]])
    assert [(test, train) for test, train, _ in found] == [(1, 17), (3, 3)]
    assert all(0 <= distance <= MAX_DISTANCE for *_, distance in found)


def test_identical_files_differ_in_no_bit_and_other_scenes_in_many(scenes):
    assert find_near_duplicates(scenes, scenes[4:5]) == [(0, 4, 0)]
    hashes = image_hashes(scenes)[:, 0]
    distances = (256 - hashes @ hashes.T)[np.triu_indices(len(scenes), 1)] / 2
    assert distances.min() > MAX_DISTANCE and 90 < np.median(distances) < 140


def test_different_digits_are_no_copies(tmp_path):
    """Characters share a composition: hashes alone take 64 of these test images for copies."""
    paths = []
    for number, image in enumerate(load_digits().images):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray((image * 15.9).astype(np.uint8)).save(paths[-1])
    assert len(find_near_duplicates(paths[:1000], paths[1000:])) < 10


def test_constant_and_broken_images_are_like_no_other(tmp_path):
    paths = [str(tmp_path / f"{name}.png") for name in ("grey", "black", "broken")]
    for path, value in zip(paths, (128, 0), strict=False):
        Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert find_near_duplicates(paths, paths) == []


def test_many_training_images_are_compared_in_parts(scenes, monkeypatch):
    whole = find_near_duplicates(scenes, scenes[::3])
    monkeypatch.setattr("sspyr_mm.benchmarks.comparison.near_duplicates._CHUNK", 5)
    assert find_near_duplicates(scenes, scenes[::3]) == whole
    assert [train for _, train, _ in whole] == list(range(0, 24, 3))
