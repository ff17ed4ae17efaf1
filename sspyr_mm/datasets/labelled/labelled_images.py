"""Labelled images: the type that all readers return.

Dimensions: N images, L classes.
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from sspyr_mm.datasets.names import alike_names
from sspyr_mm.files import shortened

ELSEWHERE = "set the folder of the images (image_root=DIR; for evaluate and compare --train-images, --test-images)"
IGNORED = -1
"""Target of a class that is ignored for an image, in training and evaluation."""


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their labels; raises ValueError if lengths, or shape or type of the targets, do not match."""

    paths: list[str]  # of the N images
    # (N, L) int8: 1 shown, 0 not shown, -1 ignored in training and evaluation (VOC: only difficult objects).
    targets: np.ndarray
    classes: tuple[str, ...]  # names in the order of the columns
    multi_label: bool  # whether an image may show several classes, or none
    # N ids that do not depend on the location of the files, for lists of images: the id of COCO, the name of VOC, else
    # the path as written in the source.
    image_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = (len(self.paths), len(self.classes))
        if self.targets.shape != shape or self.targets.dtype != np.int8:
            raise ValueError(
                f"targets must be int8 of shape {shape} (paths, classes), got {self.targets.dtype} of shape "
                f"{self.targets.shape}"
            )
        if len(self.image_ids) != len(self.paths):
            raise ValueError(f"{len(self.paths)} paths, but {len(self.image_ids)} image_ids")

    def with_classes(self, classes: Sequence[str]) -> "LabelledImages":
        """Returns the same images with other columns; classes that this set lacks become columns of zeros.

        Raises ValueError if ``classes`` lacks a class of this set.
        """
        classes = tuple(classes)
        if lost := [name for name in self.classes if name not in classes]:
            raise ValueError(
                f"Labels outside of the {len(classes)} classes given: {shortened(lost)}; add them to the classes, or "
                "remove them from the annotations"
            )
        targets = np.zeros((len(self.paths), len(classes)), np.int8)
        targets[:, [classes.index(name) for name in self.classes]] = self.targets
        return replace(self, targets=targets, classes=classes)

    def with_images(self, image_ids: Iterable[str], source: str | os.PathLike) -> "LabelledImages":
        """Returns the images of a list, in the order of the set; raises ValueError if the set lacks one of them.

        Error messages name the ``source`` of the list.
        """
        wanted = set(image_ids)
        if missing := sorted(wanted.difference(self.image_ids)):
            raise ValueError(
                f"{source}: {len(missing)} of {len(wanted)} listed images are missing from the annotations: "
                f"{shortened(missing)}; the list was made for another split or data set: make one with "
                "tools/dataset_converters/make_coco_splits.py JSON --any-images --name NAME --out DIR and set "
                "train_dataloader.dataset.image_ids"
            )
        return self.with_rows([row for row, image_id in enumerate(self.image_ids) if image_id in wanted])

    def with_rows(self, rows: Sequence[int]) -> "LabelledImages":
        """Returns the images of some rows."""
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            targets=self.targets[rows],
            image_ids=tuple(self.image_ids[row] for row in rows),
        )


def match_classes(
    train: LabelledImages, test: LabelledImages, names: tuple[str, str] = ("train", "test")
) -> LabelledImages:
    """Returns a test set with the columns of the training set; messages use ``names``.

    Classes that the test set lists but no image of it shows are ignored, such as unused ones of VOC's 20. Raises
    ValueError if ``test`` shows a class that ``train`` lacks, or only one of the two sets has one label per image.
    """
    shown = np.flatnonzero(test.targets.any(0))
    found = [test.classes[column] for column in shown]
    if lost := [name for name in found if name not in train.classes]:
        alike = [group for group in alike_names([*train.classes, *lost]) if set(group) & set(lost)]
        raise ValueError(
            f"{names[1]} has {len(lost)} classes that {names[0]} lacks: {shortened(lost)}; {names[0]} has "
            f"{shortened(train.classes)}"
            + "".join(f"; {' / '.join(map(repr, group))} differ only in case or spaces" for group in alike)
            + ". Give two parts of one data set; a csv with a column per class also lists classes that no image shows"
        )
    if train.multi_label != test.multi_label:
        kinds = ("several labels", "one label")
        first, second = kinds if train.multi_label else kinds[::-1]
        raise ValueError(
            f"{names[0]} has {first} per image and {names[1]} {second} (folders of classes have one): give both in the "
            "same form"
        )
    result = replace(test, targets=test.targets[:, shown], classes=tuple(found)).with_classes(train.classes)
    columns = np.flatnonzero((result.targets == 1).any(0) & ~(train.targets == 1).any(0))
    if unseen := [train.classes[column] for column in columns]:
        warnings.warn(
            f"{names[1]} shows {len(unseen)} classes that no image of {names[0]} shows: {shortened(unseen)}; they are "
            "evaluated without training images",
            stacklevel=3,
        )
    return result


def shared_images(train: Iterable[str], test: Iterable[str]) -> set[str]:
    """Returns the images that are in both parts of a data set, with links resolved."""
    folder_of = cache(os.path.realpath)  # a system call per part of the path, so only once per folder
    found = []
    for paths in (train, test):
        files = {os.path.join(folder_of(folder), name) for folder, name in map(os.path.split, paths)}
        found.append({os.path.realpath(file) if os.path.islink(file) else file for file in files})
    return found[0] & found[1]


def warn_of_shared_images(shared: set[str], num_test: int, names: tuple[str, str]) -> None:
    """Warns if there are shared images of the training and the test part, which have ``names``."""
    if shared:
        warnings.warn(
            f"{len(shared)} of {num_test} test images ({names[1]}) are training images, too ({names[0]}), such as "
            f"{min(shared)}: figures on them do not apply to other images. Give two parts that share no image",
            stacklevel=3,
        )


def unknown_split(source: str | Path, split: str | None, found: Sequence[str]) -> ValueError:
    """Returns the error for a split that does not exist, or that has to be chosen."""
    wanted = "no split was given" if split is None else f"it has no split {split!r}"
    return ValueError(
        f"{source}: {wanted}; choose one of {shortened(found, 20) or 'none found'} (split=NAME; on the command line "
        "--train-split or --split, and --test-split or --val-split)"
    )
