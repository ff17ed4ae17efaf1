"""Discovery of image files in folders and list files, and detection of their formats."""

from sspyr_mm.datasets.finding.file_kinds import IMAGE_SUFFIXES
from sspyr_mm.datasets.finding.list_files import drop_missing, read_list, require_files
from sspyr_mm.datasets.finding.walk import ImageFinder

__all__ = ["IMAGE_SUFFIXES", "ImageFinder", "drop_missing", "read_list", "require_files"]
