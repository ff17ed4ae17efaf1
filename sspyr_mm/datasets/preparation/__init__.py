"""Bringing public data sets into a folder: what is there is verified, what is missing is downloaded."""

from sspyr_mm.datasets.preparation.coco import CocoSplit, coco_parts
from sspyr_mm.datasets.preparation.parts import Part, prepare
from sspyr_mm.datasets.preparation.voc import VocSplit, voc_parts

__all__ = ["CocoSplit", "Part", "VocSplit", "coco_parts", "prepare", "voc_parts"]
