"""Columns and rows of labelled images, and classes of training and test sets from different sources."""

import re
import warnings

import numpy as np
import pytest
from labelled_files import shown_classes, write_voc

from sspyr_mm.datasets.labelled import LabelledImages, match_classes, read_labelled


def make(classes, targets):
    targets = np.array(targets, np.int8)
    names = [f"{row}.jpg" for row in range(len(targets))]
    return LabelledImages(names, targets, tuple(classes), multi_label=True, image_ids=tuple(names))


def test_classes_are_matched_by_name():
    train = make("abc", [[1, 0, 0]])
    assert match_classes(train, train).targets.tolist() == [[1, 0, 0]]
    with pytest.warns(UserWarning, match=r"test shows 2 classes that no image of train shows: b, c"):
        found = match_classes(train, make("cb", [[1, 0], [-1, 1]]))
    assert found.classes == ("a", "b", "c")
    assert found.targets.tolist() == [[0, 0, 1], [0, 1, -1]]
    message = r"--val has 2 classes that --train lacks: x, y; --train has a, b, c\. Give two parts"
    with pytest.raises(ValueError, match=message):
        match_classes(train, make("axy", [[0, -1, 1]]), ("--train", "--val"))


def test_with_classes_and_with_images_select_columns_and_rows():
    found = make("ab", [[1, 0], [0, -1], [1, 1]])
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


def write_tree(folder, *labels):
    """Writes a VOC tree with an image per label."""
    annotations = {str(number): [(label, False)] for number, label in enumerate(labels)}
    return read_labelled(write_voc(folder, annotations, {"all": annotations}))


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("cat", "zebra"), ("cat",)),  # only the test set has no other classes than VOC
        (("cat", "dog"), ("dog", "cat")),
        (("zebra", "cat"), ("cat", "zebra")),
    ],
)
def test_voc_trees_match_if_only_one_has_other_classes(tmp_path, train, test):
    train = write_tree(tmp_path / "train", *train)
    test = write_tree(tmp_path / "test", *test)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matched = match_classes(train, test)
    assert matched.classes == train.classes and shown_classes(matched) == shown_classes(test)


def test_shown_test_classes_that_train_lacks_are_refused(tmp_path):
    train = write_tree(tmp_path / "train", "cat", "Ze bra")
    test = write_tree(tmp_path / "test", "cat", "zebra")
    message = r"test has 1 classes that train lacks: zebra; .*'Ze bra' / 'zebra' differ only in case"
    with pytest.raises(ValueError, match=message):
        match_classes(train, test)
    voc = write_tree(tmp_path / "voc", "dog")
    with pytest.raises(ValueError, match="test has 1 classes that train lacks: dog;"):
        match_classes(train, voc)


def test_classes_without_training_images_are_reported(tmp_path):
    train = write_tree(tmp_path / "train", "cat", "dog")
    test = write_tree(tmp_path / "test", "cow", "dog")
    with pytest.warns(UserWarning, match="test shows 1 classes that no image of train shows: cow;"):
        match_classes(train, test)
    ignored = LabelledImages(["a"], np.array([[-1]], np.int8), ("cow",), True, ("a",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_classes(train, ignored).targets[0, train.classes.index("cow")] == -1
