"""Class names that differ only in case or spaces are reported in every format."""

import json
import warnings

import pytest

from sspyr_mm.datasets.labelled import read_labelled

IMAGES = ("a.jpg", "b.jpg")


def write_coco(folder, names):
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(IMAGES)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [{"id": 1 + i, "image_id": i, "category_id": i} for i in range(2)],
    }
    (folder / "set.json").write_text(json.dumps(content))
    return folder / "set.json"


def write_table(folder, names):
    (folder / "set.csv").write_text(f'file,labels\na.jpg,"{names[0]}"\nb.jpg,"{names[1]}"\n')
    return folder / "set.csv"


def write_voc(folder, names):
    for below in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / below).mkdir(parents=True)
    for stem, name in zip("ab", names, strict=True):
        (folder / f"JPEGImages/{stem}.jpg").touch()
        (folder / f"Annotations/{stem}.xml").write_text(
            f"<annotation><object><name>{name}</name></object></annotation>"
        )
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\n")
    return folder


def write_folders(folder, names):
    for name in names:
        (folder / "set" / name).mkdir(parents=True)
        (folder / "set" / name / "a.jpg").touch()
    return folder / "set"


@pytest.mark.parametrize("write", [write_coco, write_table, write_voc, write_folders])
def test_alike_classes_are_reported(tmp_path, write):
    for name in IMAGES:
        (tmp_path / name).touch()
    source = write(tmp_path, ["traffic light", "TrafficLight"])
    with pytest.warns(UserWarning, match=r"'(?i:traffic ?light)' / '.*each counts as a separate class") as caught:
        found = read_labelled(source)
    assert len(caught) == 1 and str(source) in str(caught[0].message)
    assert sorted(found.classes) == ["TrafficLight", "traffic light"]


@pytest.mark.parametrize("write", [write_coco, write_table, write_voc, write_folders])
def test_different_classes_are_not_reported(tmp_path, write):
    for name in IMAGES:
        (tmp_path / name).touch()
    source = write(tmp_path, ["traffic light", "traffic lights"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_labelled(source)
