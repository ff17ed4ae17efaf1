"""Images and what they show: the one form that all readers return.

Dimensions: N images, L classes.
"""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sspyr_mm.datasets.names import alike_names
from sspyr_mm.files import shortened

IGNORED = -1
"""Target of a class that is neither to be learned nor to be counted for an image."""


@dataclass(frozen=True)
class LabelledImages:
    """Files and what they show.

    Args:
        paths: N files.
        targets: (N, L) int8: 1 shown, 0 not, -1 neither to be learned nor to be counted (VOC: the class has difficult
            objects only).
        classes: Names, in the order of the columns.
        multi_label: Whether an image may show several classes, or none.
        image_ids: N names that stay when files move, for lists of a split: COCO's id, VOC's name, else the path as
            the source has it.

    Raises:
        ValueError: If the parts don't belong together.
    """

    paths: list[str]
    targets: np.ndarray
    classes: tuple[str, ...]
    multi_label: bool
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
        """The same images under another list of classes.

        Args:
            classes: Names, in the order wanted. Those that this set lacks become columns of zeros.

        Returns:
            The set with these columns.

        Raises:
            ValueError: If the set shows a class that is not listed.
        """
        classes = tuple(classes)
        lost = [name for name in self.classes if name not in classes]
        if lost:
            raise ValueError(
                f"Labels outside of the {len(classes)} classes given: {shortened(lost)}; add them, or take them out of "
                "the annotations"
            )
        targets = np.zeros((len(self.paths), len(classes)), np.int8)
        targets[:, [classes.index(name) for name in self.classes]] = self.targets
        return replace(self, targets=targets, classes=classes)

    def with_images(self, image_ids: Iterable[str], source: str | os.PathLike) -> "LabelledImages":
        """Those images of the set that a list names, in the order of the set.

        Args:
            image_ids: Ids.
            source: Where they are from, for the message.

        Returns:
            The smaller set.

        Raises:
            ValueError: If the set lacks one of them.
        """
        wanted = set(image_ids)
        missing = sorted(wanted.difference(self.image_ids))
        if missing:
            raise ValueError(
                f"{source} lists {len(missing)} of {len(wanted)} images that the annotations lack: "
                f"{shortened(missing)}; the list was made for another split or data set: make one with "
                "tools/dataset_converters/make_coco_splits.py JSON --any-images --name NAME --out DIR and set "
                "train_dataloader.dataset.image_ids"
            )
        rows = [row for row, image_id in enumerate(self.image_ids) if image_id in wanted]
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            targets=self.targets[rows],
            image_ids=tuple(self.image_ids[row] for row in rows),
        )


def match_classes(
    train: LabelledImages, test: LabelledImages, names: tuple[str, str] = ("train", "test")
) -> LabelledImages:
    """Gives a test set the classes of the training set.

    Classes that a test set lists and no image of it shows do not count, such as those of VOC's 20 that are not there.

    Args:
        train: Training set.
        test: Test set.
        names: Names of the two in messages.

    Returns:
        ``test`` with the columns of ``train``; those of classes it does not show are zeros.

    Raises:
        ValueError: If ``test`` shows a class that ``train`` lacks.
    """
    shown = np.flatnonzero(test.targets.any(0))
    found = [test.classes[column] for column in shown]
    if lost := [name for name in found if name not in train.classes]:
        alike = [group for group in alike_names([*train.classes, *lost]) if set(group) & set(lost)]
        raise ValueError(
            f"{names[1]} has {len(lost)} classes that {names[0]} lacks: {shortened(lost)}; {names[0]} has "
            f"{shortened(train.classes)}"
            + "".join(f"; {' / '.join(map(repr, group))} differ in case or blanks only" for group in alike)
            + ". Give two parts of one data set; in a csv, a column per class names also those that no image shows"
        )
    test = replace(test, targets=test.targets[:, shown], classes=tuple(found))
    result = test.with_classes(train.classes)
    columns = np.flatnonzero((result.targets == 1).any(0) & ~(train.targets == 1).any(0))
    if unseen := [train.classes[column] for column in columns]:
        warnings.warn(
            f"{names[1]} shows {len(unseen)} classes that no image of {names[0]} shows: {shortened(unseen)}; they are "
            "measured without having been learned",
            stacklevel=3,
        )
    return result


def check_files(paths: Sequence[str], source: str | os.PathLike) -> None:
    """Refuses a set of which images are missing; asks per folder, not per file.

    Args:
        paths: Files.
        source: What names them, for the message.

    Raises:
        FileNotFoundError: If one does not exist.
    """
    present: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in present:
            present[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
        if name not in present[folder]:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"{source} names {len(missing)} of {len(paths)} images that do not exist: {shortened(missing)}; complete "
            "their folder, or say where it is (image_root=DIR; for evaluate --train-images, --test-images)"
        )


def image_targets(num_images: int, num_classes: int) -> np.ndarray:
    """(N, L) int8 zeros, to be filled by a reader."""
    return np.zeros((num_images, num_classes), np.int8)


def repeated(names: Iterable[str]) -> list[str]:
    """Names that occur more than once, in their order."""
    return [name for name, count in Counter(names).items() if count > 1]


def unknown_split(source: str | Path, split: str | None, found: Sequence[str]) -> ValueError:
    """The error for a split that a source lacks, or that has to be chosen."""
    wanted = "no split was given" if split is None else f"it has no split {split!r}"
    return ValueError(
        f"{source}: {wanted}; choose one of {shortened(found, 20) or 'none found'} (split=NAME; on the command line "
        "--train-split, and --test-split or --val-split)"
    )
