"""Data sets with image labels: where they are found, and splits that cannot be used."""

import os
import re
import warnings

import cv2
import numpy as np
import pytest

from sspyr_mm.benchmarks.classification.multi_label_data import Source, coco_sources, load_data, voc07_sources


def table(folder, text):
    folder.mkdir()
    for line in text.split()[1:]:
        cv2.imwrite(str(folder / line.split(",")[0]), np.zeros((8, 8, 3), np.uint8))
    path = folder / "set.csv"
    path.write_text(text)
    return Source(str(path))


GOOD = "file,cat,dog\na.jpg,1,0\nb.jpg,0,1\n"


@pytest.fixture
def good(tmp_path):
    return table(tmp_path / "good", GOOD)


@pytest.mark.parametrize("part", ["train", "test"])
def test_folder_per_class_is_refused(part, good, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        os.link(tmp_path / "good" / "a.jpg", tmp_path / "folders" / name / "1.jpg")
    folders = Source(str(tmp_path / "folders"))
    message = f"{part}: {re.escape(folders.source)} has a folder per class: these protocols"
    with pytest.raises(ValueError, match=message):
        load_data("mine", **{"train": good, "test": good, part: folders})


@pytest.mark.parametrize("part", ["train", "test"])
def test_part_without_labels_is_refused(part, good, tmp_path):
    bare = table(tmp_path / "bare", "file,cat,dog\na.jpg,0,-1\nb.jpg,0,0\n")
    message = rf"{part}: {re.escape(bare.source)} has no labels: none of its 2 images shows a class"
    with pytest.raises(ValueError, match=message):
        load_data("mine", **{"train": good, "test": good, part: bare})


def test_shared_images_are_counted_in_a_warning(good, tmp_path):
    other = table(tmp_path / "other", "file,cat,dog\nb.jpg,1,0\nc.jpg,0,1\nd.jpg,1,1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data("mine", good, other)  # equal names in different folders
    (tmp_path / "other" / "c.jpg").unlink()
    (tmp_path / "other" / "c.jpg").symlink_to(tmp_path / "good" / "a.jpg")
    message = r"1 of 3 test images .* are training images, too .*good/a\.jpg"
    with pytest.warns(UserWarning, match=message):
        load_data("mine", good, other)
    (tmp_path / "same").symlink_to(tmp_path / "good")
    with pytest.warns(UserWarning, match="2 of 2 test images"):
        load_data("mine", good, Source(str(tmp_path / "same" / "set.csv")))


def test_data_sets_are_found_by_their_files(scenes, tmp_path):
    train, test = voc07_sources(str(scenes))
    assert (train.split, test.split) == ("trainval", "test")
    assert load_data("voc07", train, test).counts["classes"] == 12
    with pytest.raises(FileNotFoundError, match=r"No VOC2007 in .*prepare_voc07\.py"):
        voc07_sources(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"No COCO in .*prepare_coco\.py"):
        coco_sources(str(tmp_path))
