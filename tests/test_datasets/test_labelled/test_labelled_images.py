"""Labelled sets of every format."""

import json
import os
import re
import warnings

import cv2
import numpy as np
import pytest
from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from sspyr_mm.datasets.labelled import LabelledImages, match_classes, read_labelled
from sspyr_mm.datasets.toy_scenes import generate
from sspyr_mm.datasets.toy_scenes.kinds import CLASSES


def write_image(path, value=128, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def names_of(found):
    return [path.rsplit("/", 1)[1] for path in found.paths]


COCO = {
    "images": [{"id": i, "file_name": f"{n}.jpg"} for i, n in enumerate(("ab", "cd", "ef"), 5)],
    "categories": [{"id": 7, "name": "cart"}, {"id": 3, "name": "tree"}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 3, "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 7, "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 7, "iscrowd": 1},
    ],
}


def write_coco(folder, **changes):
    for name in "ab", "cd", "ef":
        write_image(folder / "val2017" / f"{name}.jpg")
    path = folder / "annotations" / "instances_val2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**COCO, **changes}))
    return path


def write_voc(folder, annotations, splits):
    """`annotations`: name -> [(label, difficult)]; a tree with images."""
    for name, objects in annotations.items():
        write_image(folder / "JPEGImages" / f"{name}.jpg")
        items = "".join(
            f"<object><name>{label}</name><difficult>{int(difficult)}</difficult>"
            "<part><name>head</name></part></object>"
            for label, difficult in objects
        )
        path = folder / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"<annotation>{items}</annotation>")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


class TestCoco:
    def test_crowds_count_and_images_without_objects_stay(self, tmp_path):
        found = read_labelled(str(write_coco(tmp_path)))
        assert names_of(found) == ["ab.jpg", "cd.jpg", "ef.jpg"]
        assert found.multi_label and found.targets.dtype == np.int8
        assert found.classes == ("cart", "tree")
        assert found.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
        assert found.image_ids == ("5", "6", "7")

    def test_images_may_lie_elsewhere(self, tmp_path):
        source = write_coco(tmp_path)
        (tmp_path / "val2017").rename(tmp_path / "elsewhere")
        with pytest.raises(
            FileNotFoundError, match=r"no ab\.jpg in .* image_root=FOLDER of a labelled set .*evaluate --train-images"
        ):
            read_labelled(source)
        found = read_labelled(source, image_root=str(tmp_path / "elsewhere"))
        assert all(map(os.path.isfile, found.paths))

    def test_missing_image_is_reported(self, tmp_path):
        source = write_coco(tmp_path)
        (tmp_path / "val2017" / "ef.jpg").unlink()
        with pytest.raises(FileNotFoundError, match=r"1 of 3 images do not exist: .*/ef\.jpg;"):
            read_labelled(source)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"categories": []}, "has no categories"),
            ({"images": []}, "has no images"),
            (
                {"annotations": [{"id": 9, "image_id": 5, "category_id": 4}]},
                "annotation 9 has category_id 4, not in categories",
            ),
            (
                {"annotations": [{"id": 9, "image_id": 4, "category_id": 3}]},
                "annotation 9 has image_id 4, not in images",
            ),
            ({"images": [{"id": 5, "file_name": "ab.jpg"}] * 2}, "duplicate ids of images"),
            (
                {"categories": [{"id": 7, "name": "cart"}, {"id": 3, "name": "cart"}]},
                r"several categories have the same name: cart; rename",
            ),
            (
                {"categories": [{"id": 7, "name": 1}, {"id": 3, "name": ["a"]}]},
                r"names of categories must be text, got 1, \['a'\]: put them in quotes",
            ),
            (
                {"images": [{"id": i, "file_name": "ab.jpg"} for i in (5, 6, 7)]},
                r"several images have the same file_name: .*/ab\.jpg; merge them",
            ),
            *(
                ({"images": [{"id": 5, "file_name": name}]}, f"COCO json .*file_name must be text, got {shown}")
                for name, shown in ((5, "5"), (None, "None"), (["a"], r"\['a'\]"), ("", "''"))
            ),
            *(
                ({part: [{**COCO[part][0], key: [5]}]}, rf"COCO json .*: {key} must be a number or text, got \[5\]")
                for part, key in (
                    ("images", "id"),
                    ("categories", "id"),
                    ("annotations", "image_id"),
                    ("annotations", "category_id"),
                )
            ),
            ({"images": [{"id": 5}]}, r"not a COCO json of instances: .*KeyError: 'file_name'"),
        ],
    )
    def test_malformed_annotations_are_reported(self, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            read_labelled(write_coco(tmp_path, **changes))

    def test_split_of_a_json_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="a single split: give the file of split 'train'"):
            read_labelled(write_coco(tmp_path), split="train")


class TestVoc:
    def test_difficult_only_classes_are_ignored(self, tmp_path):
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

    def test_other_labels_are_sorted_and_the_same_for_every_split(self, tmp_path):
        annotations = {"a": [("tree", False)], "b": [("cart", False)], "c": [("dog", True)]}
        write_voc(tmp_path, annotations, {"train": ["a", "c"], "val": ["b"]})
        train, val = (read_labelled(tmp_path, split=split) for split in ("train", "val"))
        assert train.classes == val.classes == ("cart", "dog", "tree")
        assert train.targets.tolist() == [[0, 0, 1], [0, -1, 0]]
        assert val.targets.tolist() == [[1, 0, 0]]

    def test_unknown_split_error_lists_the_splits_without_lists_per_class(self, tmp_path):
        splits = {"train": ["a"], "val": ["a"], "dog_train": ["a 1"]}
        write_voc(tmp_path, {"a": [("dog", False)]}, splits)
        with pytest.raises(ValueError, match=r"no split 'test'; choose one of train, val \(split="):
            read_labelled(tmp_path, split="test")
        with pytest.raises(ValueError, match=r"no split was given; choose one of train, val "):
            read_labelled(tmp_path)

    def test_single_split_is_the_default(self, tmp_path):
        write_voc(tmp_path, {"a": [("dog", False)]}, {"train": ["a"]})
        assert read_labelled(tmp_path).image_ids == ("a",)

    def test_missing_and_broken_files_are_reported(self, tmp_path):
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

    def test_images_may_lie_elsewhere(self, tmp_path):
        tree = write_voc(tmp_path / "tree", {"a": [("dog", False)]}, {"train": ["a"]})
        remedy = r"image_root=DIR; for evaluate --train-images, --test-images\)$"
        (tree / "JPEGImages").rename(tmp_path / "images")
        with pytest.raises(FileNotFoundError, match=f"JPEGImages does not exist: .*{remedy}"):
            read_labelled(tree)
        (tmp_path / "none").mkdir()
        with pytest.raises(FileNotFoundError, match=f"none lacks 1 of 1 images: a; .*{remedy}"):
            read_labelled(tree, image_root=str(tmp_path / "none"))
        assert names_of(read_labelled(tree, image_root=str(tmp_path / "images"))) == ["a.jpg"]

    def test_first_extension_of_equal_names_is_used(self, tmp_path):
        write_voc(tmp_path, {"a": [("dog", False)]}, {"train": ["a"]})
        for ending in ("bmp", "png", "tif"):
            write_image(tmp_path / "JPEGImages" / f"a.{ending}")
        assert names_of(read_labelled(tmp_path)) == ["a.bmp"]
        (tmp_path / "JPEGImages" / "a.bmp").unlink()
        assert names_of(read_labelled(tmp_path)) == ["a.jpg"]

    def test_several_years_are_refused(self, tmp_path):
        for year in ("VOC2007", "VOC2012"):
            write_voc(tmp_path / year, {"a": [("dog", False)]}, {"train": ["a"]})
        with pytest.raises(ValueError, match=r"several VOC sets: give one of .*2007, .*2012"):
            read_labelled(tmp_path, split="train")

    def test_toy_scenes_read_the_same_from_both_layouts(self, tmp_path):
        generate(tmp_path / "scenes", num_train=12, num_val=6, size=64, seed=3, workers=1)
        coco = read_labelled(tmp_path / "scenes" / "annotations" / "instances_val2017.json")
        voc = read_labelled(tmp_path / "scenes", split="test")
        assert set(voc.classes) <= set(CLASSES) == set(coco.classes)
        assert [int(i) for i in voc.image_ids] == [int(i) for i in coco.image_ids]
        columns = [coco.classes.index(name) for name in voc.classes]
        shown = voc.targets != 0  # difficult or not: COCO knows no difference
        assert (shown == coco.targets[:, columns]).all() and shown.any()


class TestTable:
    def write(self, folder, text, name="set.csv"):
        for image in ("a.jpg", "deep/b.jpg"):
            write_image(folder / image)
        (folder / name).write_text(text)
        return folder / name

    def test_column_of_label_names_is_read(self, tmp_path):
        text = "file,labels\na.jpg,tree; dog, \n"
        source = self.write(tmp_path, text.replace(", \n", "\n") + "deep/b.jpg,\n")
        found = read_labelled(source)
        assert found.classes == ("dog", "tree") and found.multi_label
        assert found.targets.tolist() == [[1, 1], [0, 0]]
        assert found.image_ids == ("a.jpg", "deep/b.jpg")
        assert found.paths == [str(tmp_path / "a.jpg"), str(tmp_path / "deep/b.jpg")]

    @pytest.mark.parametrize("separator", [";", "|", " ; ", " | "])
    def test_labels_are_split_at_semicolons_and_bars(self, tmp_path, separator):
        rows = f"a.jpg,tree{separator}wild dog\ndeep/b.jpg,wild dog\n"
        found = read_labelled(self.write(tmp_path, f"file,labels\n{rows}"))
        assert found.classes == ("tree", "wild dog")
        assert found.targets.tolist() == [[1, 1], [0, 1]]

    def test_column_per_class_is_read(self, tmp_path):
        text = "tree\tfile\tdog, wild\n1\tb.jpg\t-1\n"
        source = self.write(tmp_path, text, "set.tsv")
        found = read_labelled(source, image_root=str(tmp_path / "deep"))
        assert found.classes == ("tree", "dog, wild")
        assert found.targets.tolist() == [[1, -1]]
        assert found.paths == [str(tmp_path / "deep" / "b.jpg")]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r":1: the header must have a column 'file' .*, got nothing"),
            ("path,labels\na.jpg,dog\n", r":1: the header must have .* got path, labels"),
            ("file,labels,dog\na.jpg,dog,1\n", r"not both: also got dog"),
            ("file,dog,dog\na.jpg,1,1\n", r"each once, got file, dog, dog"),
            ("file,labels\n", "has a header and no rows"),
            ("file,labels\na.jpg,\n", "has no labels"),
            ("file,labels\na.jpg,dog\ndeep/b.jpg,dog,cat\n", r"set\.csv:3: 3 cells, the header"),
            ("file,labels\na.jpg,dog\n,dog\n", r"set\.csv:3: no file"),
            ("file,labels\na.jpg,dog;;cat\n", r"set\.csv:2: an empty label in 'dog;;cat'"),
            ("file,dog\na.jpg,1\ndeep/b.jpg,2\n", r"set\.csv:3: 'dog' must be 1, 0 or -1, got '2'"),
            (
                "file,labels\na.jpg,dog\ndeep/b.jpg,dog\na.jpg,cat\n",
                r"set\.csv:4: a\.jpg already has a row, in line 2: .* one row \(dog;cat, ",
            ),
            ("file,dog\ndeep/b.jpg,1\n./deep//b.jpg,0\n", r"set\.csv:3: \./deep//b\.jpg already has a row, in line 2"),
            ('file,labels\na.jpg,"dog\n', r"set\.csv:2: unexpected end of data"),
        ],
    )
    def test_malformed_rows_are_reported_with_their_line(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            read_labelled(self.write(tmp_path, text))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "file,labels\na.jpg,traffic light;dog\ndeep/b.jpg,Traffic  Light\n",
                r"set\.csv: class names differ only in case or spaces: 'Traffic  Light' / 'traffic light'; each",
            ),
            ("file,Dog,cat,dog\na.jpg,1,0,0\n", r"case or spaces: 'Dog' / 'dog'; each counts as a separate class"),
            (
                'file,labels\na.jpg,"dog,cat"\ndeep/b.jpg,dog\n',
                r"set\.csv: labels contain a comma: 'dog,cat'; .* separate them by ; \(dog;cat\)",
            ),
        ],
    )
    def test_probable_typing_errors_in_labels_are_reported(self, tmp_path, text, message):
        with pytest.warns(UserWarning, match=message):
            read_labelled(self.write(tmp_path, text))

    def test_ordinary_labels_are_not_reported(self, tmp_path):
        text = 'file,"dog, wild",cat\na.jpg,1,0\n'
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_labelled(self.write(tmp_path, text))
            read_labelled(self.write(tmp_path, "file,labels\na.jpg,dog; cat\ndeep/b.jpg, dog\n"))

    def test_text_that_is_not_utf_8_is_reported(self, tmp_path):
        source = self.write(tmp_path, "")
        source.write_bytes("file,labels\na.jpg,bär\n".encode("latin-1"))
        message = r"set\.csv is not UTF-8 text \(byte 0xe4 at 19\): .* iconv .*/set\.csv > NEW"
        with pytest.raises(ValueError, match=message):
            read_labelled(source)

    def test_missing_image_is_reported(self, tmp_path):
        source = self.write(tmp_path, "file,dog\na.jpg,1\ngone/c.jpg,0\n")
        with pytest.raises(FileNotFoundError, match=r"1 of 2 images .*gone/c\.jpg; add them"):
            read_labelled(source)


class TestFolders:
    def test_folder_per_class_is_read(self, tmp_path):
        for name in ("b/1.jpg", "a/2.png", "a/deep/3.jpg"):
            write_image(tmp_path / name)
        found = read_labelled(str(tmp_path))
        assert found.classes == ("a", "b") and not found.multi_label
        assert found.targets.tolist() == [[1, 0], [1, 0], [0, 1]]
        assert found.image_ids == ("a/2.png", "a/deep/3.jpg", "b/1.jpg")

    def test_hidden_folders_are_not_classes(self, tmp_path):
        for name in ("b/1.jpg", "a/2.jpg", ".thumbnails/1.jpg", "train/.cache/1.jpg"):
            write_image(tmp_path / name)
        (tmp_path / "train").rename(tmp_path / ".train")
        assert read_labelled(tmp_path).classes == ("a", "b")
        with pytest.raises(ValueError, match=r"no split 'test'; choose one of a, b \("):
            read_labelled(tmp_path, split="test")

    def test_splits_are_folders(self, tmp_path):
        for name in ("train/a/1.jpg", "train/b/2.jpg", "val/b/3.jpg", "val/a/4.jpg"):
            write_image(tmp_path / name)
        found = read_labelled(tmp_path, split="val")
        assert found.classes == ("a", "b") and found.image_ids == ("a/4.jpg", "b/3.jpg")
        with pytest.raises(ValueError, match=r"no split 'test'; choose one of train, val"):
            read_labelled(tmp_path, split="test")

    def test_folder_without_classes_is_refused(self, tmp_path):
        write_image(tmp_path / "1.jpg")
        with pytest.raises(ValueError, match=r"or a folder with one sub-folder per class, found 0"):
            read_labelled(str(tmp_path))
        with pytest.raises(ValueError, match=r"image_root does not apply to "):
            read_labelled(tmp_path, image_root="x")


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No labelled set at .*/none\.json: give a COCO"):
        read_labelled(tmp_path / "none.json")
    (tmp_path / "set.xlsx").write_text("")
    with pytest.raises(ValueError, match=r"set\.xlsx is neither a COCO \.json nor a table"):
        read_labelled(tmp_path / "set.xlsx")


def some(classes, targets):
    targets = np.array(targets, np.int8)
    names = [f"{row}.jpg" for row in range(len(targets))]
    return LabelledImages(names, targets, tuple(classes), True, tuple(names))


def test_classes_are_matched_by_name():
    train = some("abc", [[1, 0, 0]])
    assert match_classes(train, train).targets.tolist() == [[1, 0, 0]]
    with pytest.warns(UserWarning, match=r"test shows 2 classes that no image of train shows: b, c"):
        found = match_classes(train, some("cb", [[1, 0], [-1, 1]]))
    assert found.classes == ("a", "b", "c")
    assert found.targets.tolist() == [[0, 0, 1], [0, 1, -1]]
    message = r"--val has 2 classes that --train lacks: x, y; --train has a, b, c\. Give two parts"
    with pytest.raises(ValueError, match=message):
        match_classes(train, some("axy", [[0, -1, 1]]), ("--train", "--val"))


def test_with_classes_and_with_images_select_columns_and_rows():
    found = some("ab", [[1, 0], [0, -1], [1, 1]])
    wider = found.with_classes(["c", "b", "a"])
    assert wider.targets.tolist() == [[0, 0, 1], [0, -1, 0], [0, 1, 1]]
    assert wider.classes == ("c", "b", "a")
    with pytest.raises(ValueError, match="Labels outside of the 1 classes given: b; add them"):
        found.with_classes(["a"])
    chosen = found.with_images(["2.jpg", "0.jpg"], "list.txt")
    assert chosen.image_ids == ("0.jpg", "2.jpg") and chosen.targets.tolist() == [[1, 0], [1, 1]]
    message = r"list\.txt: 1 of 2 listed images are missing from the annotations: 9\.jpg; the list was made"
    with pytest.raises(ValueError, match=message):
        found.with_images(["9.jpg", "0.jpg"], "list.txt")


def test_mismatched_lengths_are_refused():
    with pytest.raises(ValueError, match=re.escape("int8 of shape (1, 1) (paths, classes), got")):
        LabelledImages(["a"], np.zeros((1, 2), np.int8), ("x",), True, ("a",))
    with pytest.raises(ValueError, match="1 paths, but 0 image_ids"):
        LabelledImages(["a"], np.zeros((1, 1), np.int8), ("x",), True, ())


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
