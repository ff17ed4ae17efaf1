"""Data of detection and segmentation: where they are, what is in them, and whether they are the published ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sspyr_mm.benchmarks.data import MeasuredData


@dataclass(frozen=True)
class DensePart:
    """One part of a data set, as mmdet's and mmseg's data sets are told.

    Args:
        annotations: Files that say what is in it, below the root: a COCO json, or lists of ids.
        images: Folder of the images, below the root.
        masks: For every list the folder of its masks, below the root; empty for COCO.
        paths: Of all images.
    """

    annotations: tuple[str, ...]
    images: str
    masks: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True)
class DenseData(MeasuredData):
    """A data set with its two parts.

    Args:
        name: ``coco14``, ``coco17``, ``voc12aug``, ``voc12`` or ``voc07``.
        root: Its folder.
        classes: Names; of segmentation without the background.
        train: To learn from.
        test: To measure on.
    """

    name: str
    root: str
    classes: tuple[str, ...]
    train: DensePart
    test: DensePart

    @cached_property
    def labels_digest(self) -> str:
        """A hash of the classes and of all annotation files: the same on every machine."""
        result = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.train, self.test):
            for name in part.annotations:
                result.update(Path(self.root, name).read_bytes())
            for mask in mask_files(self.root, part):
                result.update(Path(mask).read_bytes())
        return result.hexdigest()


def read_ids(list_file: Path) -> list[str]:
    """Ids of a list, one a line, as mmseg reads it.

    Args:
        list_file: Such as ``ImageSets/Segmentation/train.txt``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is empty, a line is or holds a blank, or an id stands there twice.
    """
    if not list_file.is_file():
        raise FileNotFoundError(f"{list_file} does not exist: complete the tree")
    lines = list_file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line or line.split() != [line]:
            raise ValueError(
                f"{list_file}, line {number}, is {line!r}: wanted is one id a line, without blanks; mend the list"
            )
    if len(set(lines)) < len(lines):
        twice = next(one for one in lines if lines.count(one) > 1)
        raise ValueError(
            f"{list_file} names {twice} more than once, which would count more than once: remove it"
        )
    return lines


def mask_files(root: str, part: DensePart) -> list[str]:
    """Paths of the masks of one part; none for COCO."""
    return [
        f"{root}/{folder}/{one}.png"
        for file, folder in zip(part.annotations, part.masks, strict=False)
        for one in read_ids(Path(root, file))
    ]


def require_files(paths: Sequence[str], source: str) -> tuple[str, ...]:
    """Checks that files are there.

    Args:
        paths: The files.
        source: What names them.

    Raises:
        FileNotFoundError: If some are not.
    """
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{source} names {len(missing)} of {len(paths)} files that do not exist, such as {missing[0]}: complete it"
        )
    return tuple(paths)
