"""Data of detection and segmentation, as the datasets of mmdet and mmseg take them, and checks of their images."""

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

_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


@dataclass(frozen=True)
class DensePart:
    """Training or test part of a data set; folders and annotation files are below its root."""

    annotations: tuple[str, ...]  # a COCO json, or lists of image ids
    images: str  # folder of the images
    masks: tuple[str, ...]  # folder of the masks of each list; empty for COCO
    paths: tuple[str, ...]  # of all images
    mask_paths: tuple[str, ...] = ()  # of their masks; empty for COCO
    suffixes: tuple[str, str] = (".jpg", ".png")  # file extensions of images and masks, which the lists omit
    # New contents, by path, of annotation files that mmdet or mmseg would fail on or read differently.
    rewritten: Mapping[str, str] = field(default_factory=dict)

    def write_annotations(self, folder: str) -> "DensePart":
        """Writes the rewritten annotation files to a folder and returns the part that uses them."""
        names = []
        for name in self.annotations:
            if text := self.rewritten.get(name):
                name = os.path.join(os.path.abspath(folder), os.path.basename(name))
                with whole_file(name) as partial:
                    partial.write_text(text, encoding="utf-8")
            names.append(name)
        return replace(self, annotations=tuple(names), rewritten={})


@dataclass(frozen=True)
class DenseData(MeasuredData):
    """Data set with its two parts; the classes of segmentation are without the background."""

    name: str
    root: str
    classes: tuple[str, ...]
    train: DensePart
    test: DensePart

    @cached_property
    def labels_digest(self) -> str:
        """Hash of the classes and all annotation files, equal on every machine."""
        result = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.train, self.test):
            for name in (*part.annotations, *part.mask_paths):
                result.update(Path(self.root, name).read_bytes())
        return result.hexdigest()

    def write_annotations(self, folder: str) -> "DenseData":
        """Writes the rewritten annotation files to a folder and returns the data that use them."""
        return replace(self, train=self.train.write_annotations(folder), test=self.test.write_annotations(folder))


def loaded_size(path: str) -> tuple[tuple[int, int], bool]:
    """Returns the (width, height) of an image as OpenCV decodes it, and whether its EXIF orientation exchanges the two.

    Decodes the image only if its header does not suffice. Raises ValueError if it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            # Not getexif(): it also reads XMP, which OpenCV does not, and decodes a whole PNG without EXIF data.
            exif = Image.Exif()
            exif.load(opened.info.get("exif", b""))
            kind = opened.format
            if kind == "TIFF":
                exif = opened.getexif()
            transposed = exif.get(ExifTags.Base.Orientation) in _TRANSPOSED
    except Exception as error:  # Pillow's readers raise arbitrary exceptions on damaged files
        raise ValueError(f"{path} cannot be read as an image ({error}); repair or replace it") from error
    if transposed and kind not in ("JPEG", "MPO"):  # whether OpenCV applies it depends on its version
        decoded = mmcv.imread(path).shape[:2]
        # Pillow returns the size of a TIFF with its orientation applied.
        return decoded[::-1], kind == "TIFF" or decoded == (width, height)
    return ((height, width) if transposed else (width, height)), transposed


def check_sizes(paths: Sequence[str], sizes: Sequence[tuple[int, int]], source: str, *, annotated: str) -> None:
    """Raises ValueError if the (width, height) of a loaded image differs from that of its annotations.

    The message calls the annotations, which have the ``sizes``, ``annotated``, and the list of the images ``source``.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, num_cores())) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded
        loaded = list(pool.map(loaded_size, paths))
    rows = zip(paths, loaded, sizes, strict=True)
    wrong = [(path, came, wanted, transposed) for path, (came, transposed), wanted in rows if came != wanted]
    if not wrong:
        return
    path, came, wanted, transposed = wrong[0]
    if transposed and came == wanted[::-1]:
        reason = (
            "its EXIF orientation is applied, but the annotations are for the image as stored; remove the orientation "
            "(exiftool -Orientation= FILES), or annotate the images as they are displayed"
        )
    else:
        reason = "labels would lie on the wrong pixels; use the images that were annotated"
    raise ValueError(
        f"{source}: {len(wrong)} of {len(paths)} images differ in size from {annotated}. First: {path} is loaded as "
        f"{came[0]} x {came[1]} (width x height), {annotated} is {wanted[0]} x {wanted[1]}: {reason}"
    )
