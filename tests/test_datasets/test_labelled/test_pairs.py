"""Classes of training and test sets from different sources."""

import warnings

import numpy as np
import pytest

from sspyr_mm.datasets.labelled import LabelledImages, match_classes, read_labelled


def write_tree(folder, *labels):
    """A VOC tree with an image per label."""
    for below in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / below).mkdir(parents=True)
    for number, label in enumerate(labels):
        (folder / f"JPEGImages/{number}.jpg").touch()
        (folder / f"Annotations/{number}.xml").write_text(
            f"<annotation><object><name>{label}</name></object></annotation>"
        )
    ids = "".join(f"{number}\n" for number in range(len(labels)))
    (folder / "ImageSets/Main/all.txt").write_text(ids)
    return read_labelled(folder)


def shown(found):
    return [{found.classes[column] for column in row.nonzero()[0]} for row in found.targets]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("cat", "zebra"), ("cat",)),  # only the test part has classes of VOC alone
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
    assert matched.classes == train.classes and shown(matched) == shown(test)


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
