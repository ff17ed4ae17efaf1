"""Image file names from Windows, URLs and annotation tools."""

import json

import pytest

from sspyr_mm.datasets.labelled import read_labelled
from sspyr_mm.datasets.names import find_coco_images, resolve_names
from sspyr_mm.datasets.unlabelled import UnlabelledImages

STEMS = ("im 0", "im 1", "im 2")


def write(folder, below="", stems=STEMS):
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
    write(tmp_path, below)
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
    write(tmp_path, "images")
    names = ["gone.jpg", *(f"{stem}.jpg" for stem in STEMS)]
    found = find_coco_images(tmp_path / "set.json", names)
    assert found == [str(tmp_path / "images" / name) for name in names]


def test_folder_with_all_images_is_used(tmp_path):
    write(tmp_path / "some", stems=STEMS[:2])
    write(tmp_path / "all")
    names = [f"{stem}.jpg" for stem in STEMS]
    found = resolve_names(names, [tmp_path / "some", tmp_path / "all"])
    assert found == [str(tmp_path / "all" / name) for name in names]


def test_names_that_resolve_to_one_file_are_refused(tmp_path):
    write(tmp_path)
    names = [f"/gone/{part}/{stem}.jpg" for part in ("a", "b") for stem in STEMS]
    with pytest.raises(ValueError, match=r"/gone/a/im 0\.jpg and /gone/b/im 0\.jpg both resolve to"):
        resolve_names(names, [tmp_path])
    for part in ("a", "b"):
        write(tmp_path / "new", part)
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
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no {name} in .*{reason}"):
        find_coco_images(tmp_path / "set.json", [name])
