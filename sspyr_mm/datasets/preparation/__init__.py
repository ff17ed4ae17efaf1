"""Verification and download of public data sets."""

from sspyr_mm.datasets.preparation.archives import Part, Split, prepare, tool_parser
from sspyr_mm.datasets.preparation.coco_archives import COCO_SPLITS, coco_parts
from sspyr_mm.datasets.preparation.voc_archives import voc07_parts, voc12_parts

__all__ = ["COCO_SPLITS", "Part", "Split", "coco_parts", "prepare", "tool_parser", "voc07_parts", "voc12_parts"]
