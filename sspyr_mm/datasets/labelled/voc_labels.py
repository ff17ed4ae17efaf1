"""Image labels of Pascal VOC's object annotations."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from sspyr_mm.datasets.finding import IMAGE_SUFFIXES
from sspyr_mm.datasets.labelled.labelled_images import ELSEWHERE, IGNORED, LabelledImages, unknown_split
from sspyr_mm.datasets.names import read_voc_ids, warn_of_alike_classes
from sspyr_mm.datasets.text import read_xml
from sspyr_mm.files import shortened


def find_voc_tree(folder: Path) -> Path | None:
    """Returns the VOC tree (with ``Annotations`` and ``ImageSets/Main``) at a folder, in it or in its VOCdevkit.

    Raises ValueError if there are several trees, such as VOC2007 and VOC2012.
    """

    def is_tree(path: Path) -> bool:
        return (path / "Annotations").is_dir() and (path / "ImageSets" / "Main").is_dir()

    if is_tree(folder):
        return folder
    found = sorted(filter(is_tree, [*folder.glob("VOC*"), *folder.glob("VOCdevkit/VOC*")]))
    if len(found) > 1:
        raise ValueError(f"{folder} contains several VOC sets: give one of {shortened(found)}")
    return found[0] if found else None


def read_voc(root: Path, split: str | None, image_root: str | None) -> LabelledImages:
    """Reads a split of a VOC tree, optional if there is only one; the images are in ``JPEGImages`` by default.

    A class is shown (1) if it has an object that is not difficult, ignored (-1) if it has only difficult ones. Classes
    are VOC's 20 in mmpretrain's order if they include all labels of the tree, else the sorted labels of the tree: the
    same for all splits. Raises FileNotFoundError if an annotation or image of the split does not exist, and ValueError
    if the split does not exist or is empty, or an annotation is not in VOC's layout.
    """
    # The whole tree, because the classes depend on all splits.
    objects = {path.stem: _read_objects(path) for path in sorted((root / "Annotations").glob("*.xml"))}
    found = {name for labels in objects.values() for name in labels}
    classes = VOC2007_CATEGORIES if found <= set(VOC2007_CATEGORIES) else tuple(sorted(found))
    warn_of_alike_classes(classes, root)
    names = read_voc_ids(_split_file(root, split, classes), objects.__contains__)
    if lacking := [name for name in names if name not in objects]:
        raise FileNotFoundError(
            f"{root / 'Annotations'} lacks {len(lacking)} of {len(names)} images of the split: {shortened(lacking)}; "
            "extract the archive of this split as well"
        )
    targets = np.zeros((len(names), len(classes)), np.int8)
    for row, name in zip(targets, names, strict=True):
        for label, difficult in objects[name].items():
            row[classes.index(label)] = IGNORED if difficult else 1
    paths = _find_images(Path(image_root) if image_root else root / "JPEGImages", names)
    return LabelledImages(paths, targets, classes, multi_label=True, image_ids=tuple(names))


def _read_objects(path: Path) -> dict[str, bool]:
    """Returns a dict from label to whether all of its objects are difficult."""
    labels: dict[str, bool] = {}
    try:
        root = read_xml(path)
        # Only direct children: the parts of a person also have names.
        items = root.findall("object")
        _check_layout(root, len(items))
        for item in items:
            name = (item.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object has no name")
            difficult = bool(int(item.findtext("difficult") or 0))
            labels[name] = labels.get(name, True) and difficult
    except ValueError as error:
        raise ValueError(f"{path} is not a VOC annotation: {error}; repair or replace the file") from error
    return labels


def _check_layout(root: ElementTree.Element, num_objects: int) -> None:
    """Raises an error for objects outside of VOC's layout, which would otherwise be ignored silently."""
    tags = [one.tag.rpartition("}")[2].lower() for one in root.iter() if isinstance(one.tag, str)]
    if tags.count("object") > num_objects or (not num_objects and "bndbox" in tags):
        raise ValueError(
            f"{tags.count('object')} objects, of which {num_objects} are <object> directly in the root <{root.tag}>; "
            "VOC's layout is <annotation><object><name>, without a namespace (xmlns)"
        )
    if not num_objects and tags[0] != "annotation":
        raise ValueError(f"the root is <{root.tag}>, not <annotation>, and contains no object")


def _split_file(root: Path, split: str | None, classes: Iterable[str]) -> Path:
    """Returns the list file of a split."""
    folder = root / "ImageSets" / "Main"
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".txt"}
    # Files such as `aeroplane_train.txt` list +-1 per image for one class and are not splits.
    found = [name for name in files if name.rpartition("_")[0] not in set(classes)]
    if split is None and len(found) == 1:
        split = found[0]
    if split is None or split not in found:
        raise unknown_split(folder, split, found)
    return files[split]


def _find_images(folder: Path, names: list[str]) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: extract the images there, or {ELSEWHERE}")
    files = {
        os.path.splitext(name)[0]: name
        for name in sorted(os.listdir(folder), reverse=True)  # reversed, so that a.jpg is used before a.png
        if name.lower().endswith(IMAGE_SUFFIXES)
    }
    if missing := [name for name in names if name not in files]:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(names)} images: {shortened(missing)}; add them, or {ELSEWHERE}"
        )
    return [str(folder / files[name]) for name in names]
