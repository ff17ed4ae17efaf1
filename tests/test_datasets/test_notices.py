"""Notices about a data set before training."""

import cv2
import numpy as np
import pytest

from sspyr_mm.datasets import LoadRGBImage, UnlabelledImages
from sspyr_mm.datasets.unlabelled import data_notices


def write_images(folder, count, *, flat):
    """Writes images of noise, of which the first ``flat`` are nearly black."""
    rng = np.random.default_rng(0)
    for i in range(count):
        high = 12 if i < flat else 256
        cv2.imwrite(str(folder / f"{i:03}.png"), rng.integers(0, high, (8, 9, 3), np.uint8))


@pytest.mark.parametrize(("count", "flat"), [(5, 0), (5, 1), (40, 6)])
def test_few_images_without_content_are_not_reported(tmp_path, count, flat):
    write_images(tmp_path, count, flat=flat)
    assert data_notices(UnlabelledImages(tmp_path, pipeline=[LoadRGBImage()])) == []


def test_a_folder_of_black_images_is_reported(tmp_path):
    write_images(tmp_path, 40, flat=30)
    (tmp_path / "000.png").write_bytes(b"broken")
    (tmp_path / "labels.txt").touch()
    dataset = UnlabelledImages(tmp_path, pipeline=[LoadRGBImage()])
    skipped, flat = data_notices(dataset)
    assert skipped == "1 of 41 files skipped: 1 .txt"
    assert flat.startswith(
        f"14 of 19 sampled images are constant or nearly black, such as {tmp_path}/002.png is nearly black:"
    )
    assert "value_range=(LOW, HIGH)" in flat


@pytest.mark.parametrize(("region", "reported"), [(16, False), (17, True), (224, True)])
def test_images_far_smaller_than_the_regions_are_reported(region, reported, tmp_path):
    write_images(tmp_path, 5, flat=0)
    cv2.imwrite(str(tmp_path / "large.png"), np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8))
    notices = data_notices(UnlabelledImages(tmp_path, pipeline=[LoadRGBImage()]), region)
    assert [n.startswith("The sampled images are 8 px on their shorter side (median)") for n in notices] == [
        True
    ] * reported


def test_value_range_of_the_transform_is_used(tmp_path):
    for i in range(4):
        values = np.random.default_rng(i).integers(0, 900, (8, 9), np.uint16)
        cv2.imwrite(str(tmp_path / f"{i}.png"), values)
    wide = UnlabelledImages(tmp_path, pipeline=[LoadRGBImage(value_range=(0, 65535))])
    assert "4 of 4 sampled images" in data_notices(wide)[0]
    assert data_notices(UnlabelledImages(tmp_path, pipeline=[LoadRGBImage()])) == []


def test_other_data_sets_and_pipelines_have_no_notices(tmp_path):
    write_images(tmp_path, 3, flat=3)
    assert data_notices([1, 2]) == [] and data_notices(UnlabelledImages(tmp_path)) == []
