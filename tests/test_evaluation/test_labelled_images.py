"""Labelled sets: COCO json and folder per class."""

import json

import cv2
import numpy as np
import pytest

from sspyr_mm.evaluation import read_labelled
from sspyr_mm.evaluation.features import centre_crop, load_centre_crops


def write_image(path, value=128, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


@pytest.fixture
def coco(tmp_path):
    for name in "ab", "cd", "ef":
        write_image(tmp_path / "val2017" / f"{name}.jpg")
    box = {"bbox": [0, 0, 4, 4], "area": 16, "segmentation": []}
    content = {
        "images": [{"id": i, "file_name": f"{n}.jpg"} for i, n in enumerate(("ab", "cd", "ef"), 5)],
        "categories": [{"id": 7, "name": "cart"}, {"id": 3, "name": "tree"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "iscrowd": 0, **box},
            {"id": 2, "image_id": 5, "category_id": 7, "iscrowd": 0, **box},
            {"id": 3, "image_id": 7, "category_id": 7, "iscrowd": 1, **box},
        ],
    }
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return path


def test_coco_counts_crowds_and_keeps_images_without_objects(coco):
    found = read_labelled(str(coco))
    assert [p.rsplit("/", 1)[1] for p in found.paths] == ["ab.jpg", "cd.jpg", "ef.jpg"]
    assert found.multi_label
    assert found.classes == ("cart", "tree")
    assert found.targets.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_folder_per_class(tmp_path):
    for name in ("b/1.jpg", "a/2.png", "a/deep/3.jpg"):
        write_image(tmp_path / name)
    found = read_labelled(str(tmp_path))
    assert found.classes == ("a", "b") and not found.multi_label
    assert found.targets.tolist() == [[1, 0], [1, 0], [0, 1]]


def test_folder_without_classes_is_refused(tmp_path):
    write_image(tmp_path / "1.jpg")
    with pytest.raises(
        ValueError, match=r"a COCO json or a folder with one sub-folder per class, found 0"
    ):
        read_labelled(str(tmp_path))


@pytest.mark.parametrize("shape", [(50, 80), (80, 50), (9, 300), (16, 16)])
def test_centre_crop_takes_the_middle(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, shape[0]).round().astype(np.uint8)[:, None]
    image[..., 1] = np.linspace(0, 250, shape[1]).round().astype(np.uint8)[None]
    crop = centre_crop(image, 32)
    assert crop.shape == (32, 32, 3)
    assert np.abs(crop[..., :2].mean((0, 1)) - 125).max() < 5
    short = int(np.argmin(shape))
    assert np.ptp(crop[..., short]) == pytest.approx(250 * 224 / 256, abs=25)


def test_broken_image_of_a_labelled_set_is_an_error(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"broken\.jpg is not an image that can be decoded: mend it"
    ):
        load_centre_crops([str(tmp_path / "broken.jpg")], 16)
