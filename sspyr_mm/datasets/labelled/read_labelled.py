"""One entry to labelled sets of every form."""

import os
from pathlib import Path

from sspyr_mm.datasets.labelled.coco_labels import read_coco
from sspyr_mm.datasets.labelled.csv_labels import read_table
from sspyr_mm.datasets.labelled.folder_labels import read_folders
from sspyr_mm.datasets.labelled.labelled_images import LabelledImages
from sspyr_mm.datasets.labelled.voc_labels import find_voc_tree, read_voc


def read_labelled(
    source: str | os.PathLike, *, split: str | None = None, image_root: str | None = None
) -> LabelledImages:
    """Reads a labelled set.

    Args:
        source: A COCO ``.json`` of instances; a ``.csv`` or ``.tsv`` table; a VOC tree, or VOCdevkit with one tree; a
            folder with one sub-folder of images per class.
        split: Of a VOC tree (``ImageSets/Main/<split>.txt``), or the sub-folder of a folder per class. Files are one
            split already.
        image_root: Folder of the images of a json, table or VOC tree; default: where they usually lie.

    Returns:
        The set, of at least one image and one class.

    Raises:
        FileNotFoundError: If the source, an annotation or an image does not exist.
        ValueError: If the source is malformed or empty, or has no such split.
    """
    path = Path(source).expanduser()
    root = os.path.expanduser(image_root) if image_root else None
    if not path.exists():
        raise FileNotFoundError(
            f"No labelled set at {path}: give a COCO json, a table (.csv, .tsv), a VOC tree or a folder with one "
            "sub-folder per class"
        )
    if path.is_dir():
        tree = find_voc_tree(path)
        if tree:
            return read_voc(tree, split, root)
        if root:
            raise ValueError(f"image_root is not for {path}: its folders hold the images already")
        return read_folders(path, split)
    readers = {".json": read_coco, ".csv": read_table, ".tsv": read_table}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} is neither a COCO .json nor a table (.csv, .tsv)")
    if split is not None:
        raise ValueError(f"{path} is one split already: give the file of split {split!r}, or leave split out")
    return reader(path, root)
