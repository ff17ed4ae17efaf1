"""Data of detection and segmentation: unusable files are rejected before training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sspyr_mm.benchmarks.classification import multi_label_data
from sspyr_mm.benchmarks.dense.read_coco import read_coco_instances
from sspyr_mm.benchmarks.dense.read_voc import read_voc_masks
from sspyr_mm.datasets.toy_scenes import generate

LISTS = "ImageSets/Segmentation"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generate(str(root), num_train=8, num_val=4, size=64, seed=0)
    return root


@pytest.fixture
def tree(images, tmp_path):
    """A writable copy of the VOC 2007 tree."""
    return Path(shutil.copytree(images / "VOC2007", tmp_path / "VOC2007"))


def ids_of(tree, name):
    return (tree / LISTS / f"{name}.txt").read_text().split()


def write_list(tree, name, text):
    (tree / LISTS / f"{name}.txt").write_text(text)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, r"test.txt is empty"),
        ("{0}\n{1}\n{0}\n", ValueError, r"test.txt lists 1 images more than once, such as \S+:"),
        ("{0} {1}\n", FileNotFoundError, r": 1 of 1 files do not exist: .*\S \S+; add them"),
    ],
)
def test_unusable_lists_are_rejected(tree, text, error, message):
    write_list(tree, "test", text.format(*ids_of(tree, "test")))
    with pytest.raises(error, match=message):
        read_voc_masks(str(tree))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((64, 64), 77, np.uint8), r"has class 77: a mask is .* 1 to 12 for the classes"),
        (np.zeros((64, 64, 3), np.uint8), r"is uint8 \(64, 64, 3\): .* 1 of 4 masks .* need repair"),
        (np.full((64, 64), 300, np.uint16), r"is uint16 \(64, 64\)"),
        (b"text", "cannot be read as an image"),
    ],
)
def test_unusable_masks_are_rejected(tree, mask, message):
    path = tree / f"SegmentationClass/{ids_of(tree, 'test')[-1]}.png"
    path.write_bytes(mask) if isinstance(mask, bytes) else Image.fromarray(mask).save(path)
    with pytest.raises(ValueError, match=f"{path.name} {message}"):
        read_voc_masks(str(tree))


def test_void_masks_are_accepted(tree):
    path = tree / f"SegmentationClass/{ids_of(tree, 'test')[-1]}.png"
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(path)
    assert read_voc_masks(str(tree)).counts == {"train": 8, "test": 4, "classes": 12}


@pytest.mark.parametrize("text", ["", "a\na\n", "background\na\n"])
def test_class_names_are_read_and_checked(tree, text):
    write_list(tree, "class_names", text)
    with pytest.raises(ValueError, match=r"class_names.txt must name each class once"):
        read_voc_masks(str(tree))
    names = ["dining table", *"abcdefghijk"]
    write_list(tree, "class_names", "\n".join(names))
    assert read_voc_masks(str(tree)).classes == tuple(names)


@pytest.mark.parametrize(
    ("folder", "lists", "name"),
    [
        ("VOC2007", ["trainval", "test"], "voc07"),
        ("VOC2007", ["trainval", "test", "train", "val"], "voc07"),
        ("voc2012", ["train", "val"], "voc12"),
        ("VOC2012", ["train", "val", "trainval", "test"], "voc12"),
        ("any", ["train", "val", "trainval"], "voc12"),
        ("any", ["train", "val", "aug"], "voc12aug"),
    ],
)
def test_variant_is_inferred_from_the_lists(tree, tmp_path, folder, lists, name):
    learned, measured = ids_of(tree, "trainval"), ids_of(tree, "test")
    tree.rename(tmp_path / "moved")
    tree = Path(shutil.move(tmp_path / "moved", tmp_path / folder))
    (tree / "SegmentationClassAug").symlink_to("SegmentationClass")
    for file in (tree / LISTS).glob("t*.txt"):
        file.unlink()
    parts = {"train": learned[:4], "aug": learned[4:], "trainval": learned}
    for one in lists:
        write_list(tree, one, "\n".join(parts.get(one, measured)))
    assert read_voc_masks(str(tree)).name == name


def test_images_in_both_lists_are_reported(tree, monkeypatch):
    ids = ids_of(tree, "trainval") + ids_of(tree, "test")[:1]
    write_list(tree, "trainval", "\n".join(ids))
    monkeypatch.setitem(multi_label_data._OFFICIAL_COUNTS, "voc07", (9, 4))
    with pytest.warns(UserWarning, match=r"1 of 4 test images .* are training images, too"):
        data = read_voc_masks(str(tree))
    assert not data.is_official
    monkeypatch.setitem(multi_label_data._OFFICIAL_COUNTS, "voc07", (8, 4))
    write_list(tree, "trainval", "\n".join(ids[:-1]))
    assert read_voc_masks(str(tree)).is_official


def change(images, folder, edit):
    """Copies COCO's layout and edits the annotations of val."""
    for name in ("train2017", "val2017"):
        (folder / name).symlink_to(images / name)
    shutil.copytree(images / "annotations", folder / "annotations")
    file = folder / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["annotations"][3].update(segmentation=[]), "annotation 4 has an empty mask"),
        (lambda c: c["images"][0].pop("width"), "KeyError: 'width'"),
        (lambda c: c["annotations"][0].update(image_id="1"), "annotation 1 is of image '1' and"),
        (lambda c: c["annotations"][0].update(category_id=99), "category 99, one of which does not exist"),
        (lambda c: c["categories"][0].update(c["categories"][1]), "two categories have the same id or"),
        (lambda c: c.update(annotations=[]), "annotations is empty"),
        (lambda c: c["images"][0].update(file_name="no.jpg"), "1 of 4 files do not exist: .*no.jpg"),
    ],
)
def test_unusable_jsons_are_rejected(images, tmp_path, edit, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_coco_instances(change(images, tmp_path, edit))


def test_images_in_both_jsons_are_reported(images, tmp_path):
    root = Path(change(images, tmp_path, lambda content: None))
    (root / "val2017").unlink()
    (root / "val2017").symlink_to(images / "train2017")
    shutil.copy(root / "annotations/instances_train2017.json", root / "annotations/instances_val2017.json")
    with pytest.warns(UserWarning, match="8 of 8 test images"):
        read_coco_instances(str(root))
