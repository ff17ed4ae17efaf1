"""Image labels of VOC trees, also those of other programs."""

import numpy as np
import pytest
from labelled_files import names_of, shown_classes, write_image, write_voc
from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from sspyr_mm.datasets.labelled import read_labelled
from sspyr_mm.datasets.toy_scenes import CLASSES, generate


def test_difficult_only_classes_are_ignored(tmp_path):
    annotations = {
        "000001": [("dog", False), ("person", True), ("person", True)],
        "000002": [("dog", True), ("dog", False)],
        "000003": [],
        "000004": [("cat", False)],
    }
    tree = write_voc(
        tmp_path / "VOCdevkit" / "VOC2007",
        annotations,
        {"trainval": ["000003", "000001", "000002"], "test": ["000004"]},
    )
    for source in (tree, tree.parent, tmp_path):
        found = read_labelled(source, split="trainval")
        assert found.classes == VOC2007_CATEGORIES and found.multi_label
        assert found.image_ids == ("000003", "000001", "000002")
        assert names_of(found) == ["000003.jpg", "000001.jpg", "000002.jpg"]
        dog, person = map(VOC2007_CATEGORIES.index, ("dog", "person"))
        expected = np.zeros((3, 20), int)
        expected[1, dog], expected[1, person], expected[2, dog] = 1, -1, 1
        assert found.targets.tolist() == expected.tolist()


def test_other_labels_are_sorted_and_the_same_for_every_split(tmp_path):
    annotations = {"a": [("tree", False)], "b": [("cart", False)], "c": [("dog", True)]}
    write_voc(tmp_path, annotations, {"train": ["a", "c"], "val": ["b"]})
    train, val = (read_labelled(tmp_path, split=split) for split in ("train", "val"))
    assert train.classes == val.classes == ("cart", "dog", "tree")
    assert train.targets.tolist() == [[0, 0, 1], [0, -1, 0]]
    assert val.targets.tolist() == [[1, 0, 0]]


def test_unknown_split_error_lists_the_splits_without_lists_per_class(tmp_path):
    splits = {"train": ["a"], "val": ["a"], "dog_train": ["a 1"]}
    write_voc(tmp_path, {"a": [("dog", False)]}, splits)
    with pytest.raises(ValueError, match=r"no split 'test'; choose one of train, val \(split="):
        read_labelled(tmp_path, split="test")
    with pytest.raises(ValueError, match=r"no split was given; choose one of train, val "):
        read_labelled(tmp_path)


def test_single_split_is_the_default(tmp_path):
    write_voc(tmp_path, {"a": [("dog", False)]}, {"train": ["a"]})
    assert read_labelled(tmp_path).image_ids == ("a",)


def test_missing_and_broken_files_are_reported(tmp_path):
    write_voc(tmp_path, {"a": [("dog", False)], "b": []}, {"train": ["a", "b"], "none": []})
    with pytest.raises(ValueError, match=r"none\.txt is empty"):
        read_labelled(tmp_path, split="none")
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"JPEGImages lacks 1 of 2 images: b;"):
        read_labelled(tmp_path, split="train")
    (tmp_path / "Annotations" / "b.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"Annotations lacks 1 of 2 images of the spl"):
        read_labelled(tmp_path, split="train")
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation><object></annotation>")
    with pytest.raises(ValueError, match=r"b\.xml is not a VOC annotation: mismatched tag"):
        read_labelled(tmp_path, split="train")
    lists = tmp_path / "ImageSets" / "Main"
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation></annotation>")
    (lists / "train.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"train\.txt lists 1 images more than once, such as a:"):
        read_labelled(tmp_path, split="train")


def test_images_of_another_folder_are_found(tmp_path):
    tree = write_voc(tmp_path / "tree", {"a": [("dog", False)]}, {"train": ["a"]})
    remedy = r"image_root=DIR; for evaluate and compare --train-images, --test-images\)$"
    (tree / "JPEGImages").rename(tmp_path / "images")
    with pytest.raises(FileNotFoundError, match=f"JPEGImages does not exist: .*{remedy}"):
        read_labelled(tree)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=f"none lacks 1 of 1 images: a; .*{remedy}"):
        read_labelled(tree, image_root=str(tmp_path / "none"))
    assert names_of(read_labelled(tree, image_root=str(tmp_path / "images"))) == ["a.jpg"]


def test_first_extension_of_equal_names_is_used(tmp_path):
    write_voc(tmp_path, {"a": [("dog", False)]}, {"train": ["a"]})
    for ending in ("bmp", "png", "tif"):
        write_image(tmp_path / "JPEGImages" / f"a.{ending}")
    assert names_of(read_labelled(tmp_path)) == ["a.bmp"]
    (tmp_path / "JPEGImages" / "a.bmp").unlink()
    assert names_of(read_labelled(tmp_path)) == ["a.jpg"]


def test_several_years_are_refused(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / year, {"a": [("dog", False)]}, {"train": ["a"]})
    with pytest.raises(ValueError, match=r"several VOC sets: give one of .*2007, .*2012"):
        read_labelled(tmp_path, split="train")


def test_toy_scenes_read_the_same_from_both_layouts(tmp_path):
    generate(tmp_path / "scenes", num_train=12, num_val=6, size=64, seed=3, workers=1)
    coco = read_labelled(tmp_path / "scenes" / "annotations" / "instances_val2017.json")
    voc = read_labelled(tmp_path / "scenes", split="test")
    assert set(voc.classes) <= set(CLASSES) == set(coco.classes)
    assert [int(i) for i in voc.image_ids] == [int(i) for i in coco.image_ids]
    columns = [coco.classes.index(name) for name in voc.classes]
    shown = voc.targets != 0  # COCO has no difficult objects
    assert (shown == coco.targets[:, columns]).all() and shown.any()


OBJECT = "<object><name>жук</name><difficult>0</difficult><bndbox><xmin>1</xmin></bndbox></object>"


@pytest.fixture
def read(tmp_path):
    for below in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / below).mkdir(parents=True)
    (tmp_path / "JPEGImages/a.jpg").touch()
    (tmp_path / "ImageSets/Main/TRAIN.TXT").write_bytes("a.jpg\r\n".encode("utf-16"))

    def read(text, encoding="utf-8"):
        (tmp_path / "Annotations/a.xml").write_bytes(text.encode(encoding))
        (shown,) = shown_classes(read_labelled(tmp_path, split="TRAIN"))
        return shown

    return read


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
        ("UTF-8", "utf-16"),
        ("UTF-16", "utf-16"),
        ("windows-1251", "windows-1251"),
    ],
)
def test_declared_and_undeclared_encodings_are_read(read, declared, encoding):
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    assert read(f"{head}<annotation>{OBJECT}</annotation>", encoding) == {"жук"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'<annotation xmlns="http://x">{OBJECT}</annotation>', r"1 objects, of which 0 .*xmlns"),
        (f"<annotation><objects>{OBJECT}</objects></annotation>", "1 objects, of which 0"),
        (f"<annotation>{OBJECT}<more>{OBJECT}</more></annotation>", "2 objects, of which 1"),
        (f"<root><annotation>{OBJECT}</annotation></root>", "1 objects, of which 0 .* root <root>"),
        ("<annotation><Object><name>x</name></Object></annotation>", "1 objects, of which 0"),
        ("<annotation><item><bndbox/></item></annotation>", "0 objects, of which 0"),
        ("<annotations><image><box label='x'/></image></annotations>", "root is <annotations>"),
    ],
)
def test_objects_outside_of_the_layout_are_refused(read, text, message):
    with pytest.raises(ValueError, match=rf"a\.xml is not a VOC annotation: .*{message}"):
        read(text)


def test_images_without_objects_and_parts_of_objects_are_valid(read):
    assert read("<annotation><filename>a.jpg</filename></annotation>") == set()
    part = "<part><name>head</name><bndbox/></part>"
    text = f"<annotation><!-- by hand --><object><name>dog</name>{part}</object></annotation>"
    assert read(text) == {"dog"}
