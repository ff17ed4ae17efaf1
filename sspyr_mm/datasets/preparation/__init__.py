"""Bringing public data sets into a folder: what is there is verified, what is missing is downloaded."""

from sspyr_mm.datasets.preparation.coco import CocoSplit, coco_parts
from sspyr_mm.datasets.preparation.command import run_tool
from sspyr_mm.datasets.preparation.parts import Part, prepare
from sspyr_mm.datasets.preparation.voc import VocSplit, voc_parts
from sspyr_mm.datasets.preparation.voc12 import MaskCounts, voc12_parts

__all__ = [
    "CocoSplit",
    "MaskCounts",
    "Part",
    "VocSplit",
    "coco_parts",
    "prepare",
    "run_tool",
    "voc12_parts",
    "voc_parts",
]
