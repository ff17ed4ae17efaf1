"""Class names, image file names from other systems and tools, and lines of VOC's lists."""

import json
import warnings

import pytest

from sspyr_mm.datasets.labelled import read_labelled
from sspyr_mm.datasets.names import find_coco_images, read_voc_ids, resolve_names
from sspyr_mm.datasets.unlabelled import UnlabelledImages

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


STEMS = ("im 0", "im 1", "im 2")


def touch_images(folder, below="", stems=STEMS):
    for stem in stems:
        path = folder / below / f"{stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("below", "name"),
    [
        ("", "{}.jpg"),
        ("images", "images\\{}.jpg"),
        ("", "im%20{0[3]}.jpg"),
        ("images", "..\\..\\label-studio\\media\\upload\\4\\{}.jpg"),
        ("images", "/data/local-files/?d=images/im%20{0[3]}.jpg"),
        ("images", "/data/local-files/?d=x%5Cy%5Cimages%2Fim%20{0[3]}.jpg"),
        ("", "http://localhost:8080/data/upload/1/{}.jpg"),
        ("a", "https://host/bucket/a/im%20{0[3]}.jpg?token=a/b"),
        ("", "C:\\Users\\x\\{}.jpg"),
        ("images/default", "{}.jpg"),
        ("images", "{}.jpg"),
    ],
)
def test_names_of_other_systems_and_tools_are_resolved(tmp_path, below, name):
    touch_images(tmp_path, below)
    annotations = tmp_path / "annotations" / "instances_default.json"
    annotations.parent.mkdir()
    names = [name.format(stem) for stem in STEMS]
    content = {
        "images": [{"id": i, "file_name": one} for i, one in enumerate(names, 1)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 1}],
    }
    annotations.write_text(json.dumps(content))
    wanted = [str(tmp_path / below / f"{stem}.jpg") for stem in STEMS]
    assert UnlabelledImages(str(annotations), lazy_init=True).list_images() == wanted
    found = read_labelled(annotations)
    assert found.paths == wanted and found.targets.tolist() == [[0], [1], [0]]


def test_existing_names_are_used_unchanged(tmp_path):
    names = ["a%20b.jpg", "back\\slash.jpg", "x?d=y.jpg"]
    for name in names:
        (tmp_path / name).touch()
    for other in ("a b.jpg", "slash.jpg", "y.jpg"):
        (tmp_path / other).touch()
    assert resolve_names(names, [tmp_path]) == [str(tmp_path / name) for name in names]


def test_a_missing_first_image_does_not_hide_the_others(tmp_path):
    touch_images(tmp_path, "images")
    names = ["gone.jpg", *(f"{stem}.jpg" for stem in STEMS)]
    found = find_coco_images(tmp_path / "set.json", names)
    assert found == [str(tmp_path / "images" / name) for name in names]


def test_folder_with_all_images_is_used(tmp_path):
    touch_images(tmp_path / "some", stems=STEMS[:2])
    touch_images(tmp_path / "all")
    names = [f"{stem}.jpg" for stem in STEMS]
    found = resolve_names(names, [tmp_path / "some", tmp_path / "all"])
    assert found == [str(tmp_path / "all" / name) for name in names]


def test_names_that_resolve_to_one_file_are_refused(tmp_path):
    touch_images(tmp_path)
    names = [f"/gone/{part}/{stem}.jpg" for part in ("a", "b") for stem in STEMS]
    with pytest.raises(ValueError, match=r"/gone/a/im 0\.jpg and /gone/b/im 0\.jpg both resolve to"):
        resolve_names(names, [tmp_path])
    for part in ("a", "b"):
        touch_images(tmp_path / "new", part)
    found = resolve_names(names, [tmp_path / "new"])
    assert found == [name.replace("/gone", str(tmp_path / "new")) for name in names]


def test_only_a_sample_of_names_is_checked(tmp_path):
    names = [f"{number}.jpg" for number in range(100_000)]
    (tmp_path / "0.jpg").touch()
    found = resolve_names(names, [tmp_path / "none", tmp_path])
    assert found[::50_000] == [str(tmp_path / "0.jpg"), str(tmp_path / "50000.jpg")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("IM 0.JPG", r"im 0\.jpg exists: names must match in case"), ("im 0.png", r"match in extension")],
)
def test_near_miss_is_reported(tmp_path, name, reason):
    touch_images(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no {name} in .*{reason}"):
        find_coco_images(tmp_path / "set.json", [name])


KNOWN = {"2007_01", "a b", "a b 1", "x.v2", "sub/c"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("2007_01", "2007_01"),
        ("  2007_01\t", "2007_01"),
        ("2007_01  1", "2007_01"),
        ("2007_01 -1", "2007_01"),
        ("2007_01.jpg", "2007_01"),
        ("2007_01.JPG 1", "2007_01"),
        ("JPEGImages/2007_01.jpg", "2007_01"),
        ("..\\JPEGImages\\2007_01.jpg", "2007_01"),
        ("/JPEGImages/2007_01.jpg /SegmentationClass/2007_01.png", "2007_01"),
        ("a b", "a b"),
        ("a b -1", "a b"),
        ("a b 1", "a b 1"),
        ("a b.jpg", "a b"),
        ("x.v2", "x.v2"),
        ("x.v2.jpg", "x.v2"),
        ("sub/c", "sub/c"),
        ("sub/c.jpg", "sub/c"),
        ("gone", "gone"),
        ("gone 1", "gone 1"),
        ("2007_01.1", "2007_01.1"),
        ("2007_01 2", "2007_01 2"),
        ("/", "/"),
    ],
)
def test_forms_of_a_line_resolve_to_an_id(tmp_path, line, wanted):
    path = tmp_path / "list.txt"
    path.write_text(f"{line}\n")
    assert read_voc_ids(path, KNOWN.__contains__) == [wanted]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_line_ends_and_empty_lines_are_read(tmp_path, encoding):
    path = tmp_path / "list.txt"
    path.write_bytes("a b\r\n\r\nsub/c 1\r\n\r\n".encode(encoding))
    assert read_voc_ids(path, KNOWN.__contains__) == ["a b", "sub/c"]


def test_an_image_listed_in_two_spellings_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a b\nsub/c\nimages/a b.jpg\n")
    with pytest.raises(ValueError, match=r"list\.txt lists 1 images more than once, such as a b:"):
        read_voc_ids(path, KNOWN.__contains__)
    path.write_text(" \n")
    with pytest.raises(ValueError, match=r"list\.txt is empty"):
        read_voc_ids(path, KNOWN.__contains__)
