"""The data a protocol runs on: the paper's, where they are found, or any labelled set."""

import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sspyr_mm.benchmarks.base_protocol import DataOptions
from sspyr_mm.benchmarks.classification.feature_store import file_states
from sspyr_mm.datasets.labelled import LabelledImages, match_classes, read_labelled

__all__ = [
    "BenchmarkData",
    "MeasuredData",
    "Source",
    "coco_sources",
    "load_data",
    "load_given",
    "voc07_sources",
    "warn_of_shared_files",
]

_OFFICIAL_COUNTS = {"voc07": (5011, 4952), "coco14": (82783, 40504), "voc12aug": (10582, 1449)}
"""Images of the training and the test split, as the data sets are published."""


@dataclass(frozen=True)
class Source:
    """Where one split is.

    Args:
        source: COCO json, VOC tree, CSV, or folder.
        split: Of a VOC tree.
        image_root: Folder of the images, where the source does not tell.
    """

    source: str
    split: str | None = None
    image_root: str | None = None

    def read(self) -> LabelledImages:
        """Reads the labels. Errors as :func:`read_labelled`."""
        return read_labelled(self.source, split=self.split, image_root=self.image_root)


class MeasuredData:
    """What results say of a data set with two parts, ``train`` and ``test``, each with the ``paths`` of its images."""

    name: str
    train: Any
    test: Any
    classes: Any
    labels_digest: Any

    @cached_property
    def is_official(self) -> bool:
        """Whether this is the published data set, all of it, no test image among those that are learned."""
        counts = len(self.train.paths), len(self.test.paths)
        return _OFFICIAL_COUNTS.get(self.name) == counts and not self.shared_files

    @cached_property
    def shared_files(self) -> set[str]:
        """Images that are in both parts, whatever links lead to them."""
        return _files(self.train.paths) & _files(self.test.paths)

    @property
    def counts(self) -> dict[str, int]:
        """Images of both splits, and classes."""
        return {"train": len(self.train.paths), "test": len(self.test.paths), "classes": len(self.classes)}

    @cached_property
    def digest(self) -> str:
        """A hash of labels and of place, size and time of change of every image."""
        result = hashlib.sha256(self.labels_digest.encode())
        for part in (self.train, self.test):
            result.update(file_states(part.paths))
        return result.hexdigest()


@dataclass(frozen=True)
class BenchmarkData(MeasuredData):
    """A data set with its two splits.

    Args:
        name: ``voc07``, ``coco14``, ``coco17``, or what the user calls it.
        train_source: Where the training split is.
        test_source: Where the test split is.
        train: Training images.
        test: Test images.
    """

    name: str
    train_source: Source
    test_source: Source
    train: LabelledImages
    test: LabelledImages

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the columns."""
        return self.train.classes

    def by_class(self, percent: Sequence[float]) -> dict[str, float | None]:
        """Average precision by name of the class; None where it is not defined, as JSON has no NaN.

        Args:
            percent: (L,), in the order of the columns.
        """
        values = (None if math.isnan(value) else value for value in percent)
        return dict(zip(self.test.classes, values, strict=True))

    @cached_property
    def labels_digest(self) -> str:
        """A hash of classes, images' ids and labels: the same on every machine."""
        result = hashlib.sha256()
        for part in (self.train, self.test):
            result.update("\0".join((*part.classes, "", *part.image_ids)).encode())
            result.update(np.ascontiguousarray(part.targets).tobytes())
        return result.hexdigest()


def load_given(options: DataOptions) -> list[BenchmarkData]:
    """Reads every labelled data set of the command line.

    Args:
        options: Where the data are.

    Raises:
        FileNotFoundError: If a data set is not there.
        ValueError: If none is given, a part is missing, or one cannot be used; see :func:`load_data`.
    """
    of_train = options.given(("train_split", "test_split", "train_images", "test_images"))
    if of_train and not options.train:
        flag = of_train[0].replace("_", "-")
        raise ValueError(f"--{flag} belongs to --train and --test: give both")
    if bool(options.train) != bool(options.test):
        raise ValueError("--train and --test belong together: give both")
    found = []
    if options.voc:
        found.append(load_data("voc07", *voc07_sources(options.voc)))
    if options.coco:
        found.append(load_data(*coco_sources(options.coco)))
    if options.train and options.test:
        train = Source(options.train, options.train_split, options.train_images)
        test = Source(options.test, options.test_split, options.test_images)
        found.append(load_data(options.name, train, test))
    if not found:
        raise ValueError("No data: give --voc DIR, --coco DIR, or --train SET with --test SET")
    return found


def load_data(name: str, train: Source, test: Source) -> BenchmarkData:
    """Reads both splits.

    Args:
        name: What results call the data.
        train: Where the training split is.
        test: Where the test split is.

    Raises:
        ValueError: If the test split has classes of its own, an image can have one label only, a split shows nothing,
            or a source can't be read.
    """
    learned, measured = train.read(), test.read()
    _check_part("train", train, learned)
    _check_part("test", test, measured)
    data = BenchmarkData(name, train, test, learned, match_classes(learned, measured))
    warn_of_shared_files(data, train.source, test.source)
    return data


def warn_of_shared_files(data: MeasuredData, train: str, test: str) -> None:
    """Warns where test images are learned.

    Args:
        data: Both parts.
        train: Where the training images are from.
        test: Where the test images are from.
    """
    if shared := data.shared_files:
        warnings.warn(
            f"{len(shared)} of {len(data.test.paths)} test images ({test}) are training images, too ({train}), such as "
            f"{min(shared)}: what is measured on them says nothing about others. Give two parts that share no image",
            stacklevel=3,
        )


def _check_part(name: str, source: Source, part: LabelledImages) -> None:
    """Refuses what would fail, or mean nothing, hours later."""
    where = f"{name}: {source.source}" + (f", split {source.split}," if source.split else "")
    if not part.multi_label:
        raise ValueError(
            f"{where} is a folder per class: these protocols are for several labels an image; give a COCO json, "
            "a VOC tree or a CSV. `probe` measures a folder per class"
        )
    if not (part.targets == 1).any():
        raise ValueError(
            f"{where} has no label: none of its {len(part.paths)} images shows a class. Give annotations that have "
            "some (those of COCO's test sets have none)"
        )


def _files(paths: Iterable[str]) -> set[str]:
    """Where images lie, whatever links lead there."""
    folder_of = cache(os.path.realpath)  # else every part of every path is looked at
    files = set()
    for path in paths:
        folder, name = os.path.split(path)
        file = os.path.join(folder_of(folder), name)
        files.add(os.path.realpath(file) if os.path.islink(file) else file)
    return files


def voc07_sources(root: str) -> tuple[Source, Source]:
    """VOC 2007's trainval and test.

    Args:
        root: ``VOCdevkit/VOC2007``, or a folder above it.

    Raises:
        FileNotFoundError: If there is none.
    """
    for folder in (root, f"{root}/VOC2007", f"{root}/VOCdevkit/VOC2007"):
        if Path(folder, "Annotations").is_dir():
            return Source(folder, "trainval"), Source(folder, "test")
    raise FileNotFoundError(
        f"No VOC2007 in {root} (looked for Annotations/ in it, in VOC2007/ and in VOCdevkit/VOC2007/): "
        "tools/dataset_converters/prepare_voc07.py says where to get it"
    )


def coco_sources(root: str) -> tuple[str, Source, Source]:
    """COCO's train and val: 2014 as in the paper if it is there, else 2017.

    Args:
        root: Folder with ``annotations/``, ``train2014/`` and ``val2014/`` (or 2017).

    Returns:
        ``coco14`` or ``coco17``, and both sources.

    Raises:
        FileNotFoundError: If there is none.
    """
    for year in ("2014", "2017"):
        files = [f"{root}/annotations/instances_{part}{year}.json" for part in ("train", "val")]
        if all(map(os.path.isfile, files)):
            return f"coco{year[2:]}", Source(files[0]), Source(files[1])
    raise FileNotFoundError(
        f"No COCO in {root}: annotations/instances_train2014.json and instances_val2014.json (or 2017) are missing; "
        "tools/dataset_converters/prepare_coco.py says where to get them"
    )
