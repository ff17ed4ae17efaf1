"""Data sets with image labels: VOC2007, COCO, or any labelled set."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sspyr_mm.benchmarks.base_protocol import DataOptions
from sspyr_mm.datasets.labelled import (
    LabelledImages,
    match_classes,
    read_labelled,
    shared_images,
    warn_of_shared_images,
)
from sspyr_mm.features.extraction import file_states

_OFFICIAL_COUNTS = {"voc07": (5011, 4952), "coco14": (82783, 40504), "voc12aug": (10582, 1449)}
"""Numbers of training and test images in the published data sets."""


@dataclass(frozen=True)
class Source:
    """Location of one split; see :func:`read_labelled`."""

    source: str  # COCO json, VOC tree, CSV, or folder
    split: str | None = None
    image_root: str | None = None


class MeasuredData:
    """A data set of two parts, ``train`` and ``test``, each with the ``paths`` of its images, described for results."""

    name: str
    train: Any
    test: Any
    classes: Any
    labels_digest: Any

    @cached_property
    def is_official(self) -> bool:
        """Whether this is the whole published data set, without test images in the training part."""
        counts = len(self.train.paths), len(self.test.paths)
        return _OFFICIAL_COUNTS.get(self.name) == counts and not self.shared_files

    @cached_property
    def shared_files(self) -> set[str]:
        """Images that are in both parts, with links resolved."""
        return shared_images(self.train.paths, self.test.paths)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of images and classes."""
        return {"train": len(self.train.paths), "test": len(self.test.paths), "classes": len(self.classes)}

    @cached_property
    def digest(self) -> str:
        """Hash of the labels and of path, size and modification time of every image."""
        result = hashlib.sha256(self.labels_digest.encode())
        for part in (self.train, self.test):
            result.update(file_states(part.paths))
        return result.hexdigest()


@dataclass(frozen=True)
class BenchmarkData(MeasuredData):
    """A data set with image labels."""

    name: str  # voc07, coco14, coco17, or the user's name
    train_source: Source
    test_source: Source
    train: LabelledImages
    test: LabelledImages

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the target columns."""
        return self.train.classes

    @cached_property
    def labels_digest(self) -> str:
        """Hash of classes, image ids and labels, equal on every machine."""
        result = hashlib.sha256()
        for part in (self.train, self.test):
            result.update("\0".join((*part.classes, "", *part.image_ids)).encode())
            result.update(np.ascontiguousarray(part.targets).tobytes())
        return result.hexdigest()


def load_given(options: DataOptions) -> list[BenchmarkData]:
    """Reads every data set with image labels that is given on the command line; see :func:`load_data`.

    Raises FileNotFoundError if one does not exist, ValueError if none is given or a part is missing.
    """
    details = options.given(("train_split", "test_split", "train_images", "test_images"))
    if details and not options.train:
        raise ValueError(f"--{details[0].replace('_', '-')} belongs to --train and --test: give both")
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
    """Reads both splits, and warns if they share images.

    Raises ValueError if the test split has other classes, images have one label only, a split has no labels, or a
    source can't be read.
    """
    learned, measured = _read_part("train", train), _read_part("test", test)
    data = BenchmarkData(name, train, test, learned, match_classes(learned, measured))
    warn_of_shared_files(data, train.source, test.source)
    return data


def warn_of_shared_files(data: MeasuredData, train: str, test: str) -> None:
    """Warns if test images are also training images; ``train`` and ``test`` name their sources."""
    warn_of_shared_images(data.shared_files, len(data.test.paths), (train, test))


def _read_part(name: str, source: Source) -> LabelledImages:
    part = read_labelled(source.source, split=source.split, image_root=source.image_root)
    where = f"{name}: {source.source}" + (f", split {source.split}," if source.split else "")
    if not part.multi_label:
        raise ValueError(
            f"{where} has a folder per class: these protocols need several labels per image; give a COCO json, "
            "a VOC tree or a CSV. `probe` measures a folder per class"
        )
    if not (part.targets == 1).any():
        raise ValueError(
            f"{where} has no labels: none of its {len(part.paths)} images shows a class. Give annotations with labels "
            "(COCO's test sets have none)"
        )
    return part


def voc07_sources(root: str) -> tuple[Source, Source]:
    """Finds trainval and test of VOC2007 in its folder or a parent; raises FileNotFoundError if neither contains it."""
    for folder in (root, f"{root}/VOC2007", f"{root}/VOCdevkit/VOC2007"):
        if Path(folder, "Annotations").is_dir():
            return Source(folder, "trainval"), Source(folder, "test")
    raise FileNotFoundError(
        f"No VOC2007 in {root} (looked for Annotations/ in it, in VOC2007/ and in VOCdevkit/VOC2007/): "
        "tools/dataset_converters/prepare_voc07.py says where to get it"
    )


def coco_sources(root: str) -> tuple[str, Source, Source]:
    """Finds train and val of COCO in a folder with ``annotations/``: 2014, as in the paper, or else 2017.

    Returns ``coco14`` or ``coco17``, and both sources. Raises FileNotFoundError if there is no COCO.
    """
    for year in ("2014", "2017"):
        files = [f"{root}/annotations/instances_{part}{year}.json" for part in ("train", "val")]
        if all(map(os.path.isfile, files)):
            return f"coco{year[2:]}", Source(files[0]), Source(files[1])
    raise FileNotFoundError(
        f"No COCO in {root}: annotations/instances_train2014.json and instances_val2014.json (or 2017) are missing; "
        "tools/dataset_converters/prepare_coco.py says where to get them"
    )
