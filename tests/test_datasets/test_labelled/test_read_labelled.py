"""Labelled folders, refused sources, and real sets."""

import numpy as np
import pytest
from labelled_files import write_image
from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from sspyr_mm.datasets.labelled import read_labelled


def test_folder_per_class_is_read(tmp_path):
    for name in ("b/1.jpg", "a/2.png", "a/deep/3.jpg"):
        write_image(tmp_path / name)
    found = read_labelled(str(tmp_path))
    assert found.classes == ("a", "b") and not found.multi_label
    assert found.targets.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert found.image_ids == ("a/2.png", "a/deep/3.jpg", "b/1.jpg")


def test_hidden_folders_are_not_classes(tmp_path):
    for name in ("b/1.jpg", "a/2.jpg", ".thumbnails/1.jpg", "train/.cache/1.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "train").rename(tmp_path / ".train")
    assert read_labelled(tmp_path).classes == ("a", "b")
    with pytest.raises(ValueError, match=r"no split 'test'; choose one of a, b \("):
        read_labelled(tmp_path, split="test")


def test_splits_are_folders(tmp_path):
    for name in ("train/a/1.jpg", "train/b/2.jpg", "val/b/3.jpg", "val/a/4.jpg"):
        write_image(tmp_path / name)
    found = read_labelled(tmp_path, split="val")
    assert found.classes == ("a", "b") and found.image_ids == ("a/4.jpg", "b/3.jpg")
    with pytest.raises(ValueError, match=r"no split 'test'; choose one of train, val"):
        read_labelled(tmp_path, split="test")


def test_folder_without_classes_is_refused(tmp_path):
    write_image(tmp_path / "1.jpg")
    with pytest.raises(ValueError, match=r"or a folder with one sub-folder per class, found 0"):
        read_labelled(str(tmp_path))
    with pytest.raises(ValueError, match=r"image_root does not apply to "):
        read_labelled(tmp_path, image_root="x")


def test_files_skipped_in_a_class_are_reported(tmp_path):
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "cat/notes.txt").write_text("about cats")
    with pytest.warns(UserWarning, match=r"cat: 1 of 3 files skipped: 1 \.txt"):
        found = read_labelled(tmp_path)
    assert len(found.paths) == 3


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No labelled set at .*/none\.json: give a COCO"):
        read_labelled(tmp_path / "none.json")
    (tmp_path / "set.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"set\.xlsx is neither a COCO \.json nor a table"):
        read_labelled(tmp_path / "set.xlsx")


@pytest.mark.real_data
def test_real_sets_have_their_published_counts(real_data):
    root = real_data
    for split, count in (("train2017", 165), ("val2017", 70)):
        found = read_labelled(root / "coco_mini" / "annotations" / f"instances_{split}.json")
        assert found.targets.shape == (count, 80) and found.classes[0] == "person"
        assert 1 < found.targets.sum(1).mean() < 6
    found = read_labelled(root / "voc_mini" / "VOC2007", split="trainval")
    assert found.classes == VOC2007_CATEGORIES and (found.targets == 1).any(0).sum() > 10
    genuine = read_labelled(root / "voc_real_2img" / "VOC2007")
    assert genuine.image_ids == ("000001", "000002")
    shown = [{genuine.classes[c] for c in np.flatnonzero(row == 1)} for row in genuine.targets]
    assert shown == [{"dog", "person"}, {"train"}]
