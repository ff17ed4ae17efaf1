"""Reader of labelled sets in every supported format."""

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
        source: COCO ``.json`` of instances; ``.csv`` or ``.tsv`` table; VOC tree, or VOCdevkit with one tree; folder
            with one sub-folder of images per class.
        split: Split of a VOC tree (``ImageSets/Main/<split>.txt``), or the sub-folder with the folders of the classes.
            Files contain a single split.
        image_root: Folder of the images of a json, table or VOC tree; default: their usual place.

    Returns:
        Labelled set with at least one image and one class.

    Raises:
        FileNotFoundError: If the source, an annotation or an image does not exist.
        ValueError: If the source is malformed or empty, or does not have the split.
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
            raise ValueError(f"image_root does not apply to {path}: its folders contain the images; leave it out")
        return read_folders(path, split)
    readers = {".json": read_coco, ".csv": read_table, ".tsv": read_table}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} is neither a COCO .json nor a table (.csv, .tsv)")
    if split is not None:
        raise ValueError(f"{path} contains a single split: give the file of split {split!r}, or leave split out")
    return reader(path, root)
