"""Names in annotations and lists: class names and colours, image file names, and VOC's image ids."""

from sspyr_mm.datasets.names.class_names import alike_names, voc_colours, warn_of_alike_classes
from sspyr_mm.datasets.names.file_names import find_coco_images, resolve_names
from sspyr_mm.datasets.names.voc_ids import read_voc_ids

__all__ = ["alike_names", "find_coco_images", "read_voc_ids", "resolve_names", "voc_colours", "warn_of_alike_classes"]
