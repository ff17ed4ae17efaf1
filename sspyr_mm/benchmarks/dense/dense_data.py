"""Data of detection and segmentation: files, classes, and what mmdet and mmseg are given of them."""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import mmcv
from PIL import ExifTags, Image

from sspyr_mm.benchmarks.classification.multi_label_data import MeasuredData
from sspyr_mm.files import whole_file
from sspyr_mm.machine import num_cores

__all__ = ["DenseData", "DensePart", "check_sizes", "loaded_size", "require_files"]

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""


@dataclass(frozen=True)
class DensePart:
    """One part of a data set, in the terms of mmdet's and mmseg's data sets.

    Args:
        annotations: Annotation files below the root: a COCO json, or lists of ids.
        images: Folder of the images, below the root.
        masks: Folder of the masks of every list, below the root; empty for COCO.
        paths: Paths of all images.
        mask_paths: Paths of their masks; empty for COCO.
        suffixes: Endings of images and masks that a list leaves out.
        rewritten: Texts of those annotation files that mmdet and mmseg cannot read, or read differently, as they are.
    """

    annotations: tuple[str, ...]
    images: str
    masks: tuple[str, ...]
    paths: tuple[str, ...]
    mask_paths: tuple[str, ...] = ()
    suffixes: tuple[str, str] = (".jpg", ".png")
    rewritten: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DenseData(MeasuredData):
    """A data set with its two parts.

    Args:
        name: ``coco14``, ``coco17``, ``voc12aug``, ``voc12`` or ``voc07``.
        root: Folder of the data set.
        classes: Names; of segmentation without the background.
        train: Part to learn from.
        test: Part to measure on.
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
            for name in (*part.annotations, *part.mask_paths):
                result.update(Path(self.root, name).read_bytes())
        return result.hexdigest()

    def write_annotations(self, folder: str) -> "DenseData":
        """Writes the annotation files that mmdet and mmseg cannot read as they are.

        Args:
            folder: Folder to write to.

        Returns:
            The data with these files in place of the user's.
        """
        parts = []
        for part in (self.train, self.test):
            names = []
            for name in part.annotations:
                if name in part.rewritten:
                    target = os.path.join(os.path.abspath(folder), os.path.basename(name))
                    with whole_file(target) as partial:
                        partial.write_text(part.rewritten[name], encoding="utf-8")
                    name = target
                names.append(name)
            parts.append(replace(part, annotations=tuple(names), rewritten={}))
        return replace(self, train=parts[0], test=parts[1])


def require_files(paths: Sequence[str], source: str) -> tuple[str, ...]:
    """Checks that files exist.

    Args:
        paths: Files.
        source: Annotations that name them.

    Returns:
        The files.

    Raises:
        FileNotFoundError: If some do not exist.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{source} names {len(missing)} of {len(paths)} files that do not exist, such as {missing[0]}: complete it"
        )
    return tuple(paths)


def loaded_size(path: str) -> tuple[tuple[int, int], bool]:
    """Size of an image as OpenCV decodes it, from its header where that suffices.

    Args:
        path: Image file.

    Returns:
        (width, height) with the EXIF orientation applied, and whether it exchanges the two.

    Raises:
        ValueError: If the file cannot be read as an image.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            # Not getexif(): it also reads XMP, which OpenCV does not, and decodes a whole PNG without EXIF data.
            exif = Image.Exif()
            exif.load(opened.info.get("exif", b""))
            turned = exif.get(ExifTags.Base.Orientation) in _TURNED
            kind = opened.format
            if kind == "TIFF":
                turned = opened.getexif().get(ExifTags.Base.Orientation) in _TURNED
    except Exception as error:  # Pillow's readers raise arbitrary exceptions on damaged files
        raise ValueError(f"{path} cannot be read as an image ({error}); repair or replace it") from error
    if turned and kind not in ("JPEG", "MPO"):  # whether OpenCV applies it depends on its version
        decoded = mmcv.imread(path).shape[:2]
        # Pillow gives the size of a TIFF with its orientation applied.
        return (decoded[1], decoded[0]), kind == "TIFF" or decoded == (width, height)
    return ((height, width) if turned else (width, height)), turned


def check_sizes(paths: Sequence[str], sizes: Sequence[tuple[int, int]], source: str, *, annotated: str) -> None:
    """Refuses images that are loaded in another size than they were annotated in.

    Args:
        paths: Images.
        sizes: (width, height) of their annotations.
        source: Annotations, for the message.
        annotated: What has these sizes, for the message.

    Raises:
        ValueError: If sizes differ, or a file cannot be read as an image.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, num_cores())) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded
        loaded = list(pool.map(loaded_size, paths))
    wrong = [
        (path, came, wanted, turned)
        for path, (came, turned), wanted in zip(paths, loaded, sizes, strict=True)
        if came != wanted
    ]
    if not wrong:
        return
    path, came, wanted, turned = wrong[0]
    if turned and came == (wanted[1], wanted[0]):
        reason = (
            "its EXIF orientation is applied, and the annotations are for the image as stored; remove the orientation "
            "(exiftool -Orientation= FILES), or annotate the images as they are shown"
        )
    else:
        reason = "labels would lie on the wrong pixels; give the images that were annotated"
    raise ValueError(
        f"{source}: {len(wrong)} of {len(paths)} images have another size than {annotated}. First: {path} is loaded as "
        f"{came[0]} x {came[1]} (width x height), {annotated} is {wanted[0]} x {wanted[1]}: {reason}"
    )
