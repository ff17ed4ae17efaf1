"""Labelled images from COCO jsons, VOC trees, tables and folders."""

from sspyr_mm.datasets.labelled.labelled_images import (
    IGNORED,
    LabelledImages,
    match_classes,
    shared_images,
    warn_of_shared_images,
)
from sspyr_mm.datasets.labelled.multi_label import CocoMultiLabel, MultiLabelImages
from sspyr_mm.datasets.labelled.read_labelled import read_labelled

__all__ = [
    "IGNORED",
    "CocoMultiLabel",
    "LabelledImages",
    "MultiLabelImages",
    "match_classes",
    "read_labelled",
    "shared_images",
    "warn_of_shared_images",
]
