"""Image labels of Pascal VOC's object annotations."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from mmpretrain.datasets.categories import VOC2007_CATEGORIES

from sspyr_mm.datasets.labelled.images import (
    IGNORED,
    LabelledImages,
    image_targets,
    repeated,
    shortened,
    unknown_split,
)
from sspyr_mm.datasets.unlabelled import IMAGE_SUFFIXES

_ELSEWHERE = "say where the images are (image_root=DIR; for evaluate --train-images, --test-images)"


def find_voc_tree(folder: Path) -> Path | None:
    """The folder with ``Annotations`` and ``ImageSets`` that a path stands for.

    Args:
        folder: That folder, VOCdevkit, or the one above it.

    Returns:
        The folder, or None if there is none.

    Raises:
        ValueError: If there are several, VOC2007 and VOC2012 say.
    """

    def is_tree(path: Path) -> bool:
        return (path / "Annotations").is_dir() and (path / "ImageSets" / "Main").is_dir()

    if is_tree(folder):
        return folder
    found = sorted(filter(is_tree, [*folder.glob("VOC*"), *folder.glob("VOCdevkit/VOC*")]))
    if len(found) > 1:
        raise ValueError(f"{folder} holds several VOC sets: give one of {shortened(found)}")
    return found[0] if found else None


def read_voc(root: Path, split: str | None, image_root: str | None = None) -> LabelledImages:
    """Reads a split of a VOC tree.

    Args:
        root: With ``Annotations``, ``JPEGImages`` and ``ImageSets/Main/<split>.txt``.
        split: Such as trainval; may be left out if there is only one.
        image_root: Folder of the images; default: ``JPEGImages``.

    Returns:
        A class is shown (1) if it has an object that is not difficult, ignored (-1) if it has difficult ones only.
        Classes are VOC's 20 in mmpretrain's order if all labels of the tree are among them, else the sorted names of
        the tree: the same for all of its splits.

    Raises:
        FileNotFoundError: If an annotation or an image of the split does not exist.
        ValueError: If there is no such split, it is empty, or an annotation can't be read.
    """
    # All of the tree: what its other splits show decides about the classes, too.
    objects = {
        path.stem: _read_objects(path) for path in sorted((root / "Annotations").glob("*.xml"))
    }
    found = {name for labels in objects.values() for name in labels}
    classes = VOC2007_CATEGORIES if found <= set(VOC2007_CATEGORIES) else tuple(sorted(found))
    names = _read_split(root, split, classes)
    lacking = [name for name in names if name not in objects]
    if lacking:
        raise FileNotFoundError(
            f"{root / 'Annotations'} lacks {len(lacking)} of {len(names)} images of the split: {shortened(lacking)}; "
            "extract the archive of this split as well"
        )
    targets = image_targets(len(names), len(classes))
    for row, name in zip(targets, names, strict=True):
        for label, difficult in objects[name].items():
            row[classes.index(label)] = IGNORED if difficult else 1
    paths = _find_images(Path(image_root) if image_root else root / "JPEGImages", names)
    return LabelledImages(paths, targets, classes, multi_label=True, image_ids=tuple(names))


def _read_objects(path: Path) -> dict[str, bool]:
    """Label -> whether all of its objects are difficult."""
    labels: dict[str, bool] = {}
    try:
        # Only direct children: the parts of a person have names, too.
        for item in ElementTree.parse(path).getroot().findall("object"):
            name = (item.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object without a name")
            difficult = bool(int(item.findtext("difficult") or 0))
            labels[name] = labels.get(name, True) and difficult
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is not a VOC annotation: {error}; mend it") from error
    return labels


def _read_split(root: Path, split: str | None, classes: Iterable[str]) -> list[str]:
    """Names of the images of a split, in its order."""
    folder = root / "ImageSets" / "Main"
    # `aeroplane_train.txt` and the like list +-1 per image of one class: no splits.
    found = sorted(
        path.stem
        for path in folder.glob("*.txt")
        if path.stem.rpartition("_")[0] not in set(classes)
    )
    if split is None and len(found) == 1:
        split = found[0]
    if split is None or split not in found:
        raise unknown_split(folder, split, found)
    path = folder / f"{split}.txt"
    names = [
        line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    if not names:
        raise ValueError(f"{path} is empty: a split needs a name of an image per line")
    if twice := repeated(names):
        raise ValueError(f"{path} names images twice: {shortened(twice)}")
    return names


def _find_images(folder: Path, names: list[str]) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist: complete the tree, or {_ELSEWHERE}")
    files = {
        os.path.splitext(name)[0]: name
        for name in sorted(os.listdir(folder), reverse=True)  # of a.jpg and a.png the first
        if name.lower().endswith(IMAGE_SUFFIXES)
    }
    missing = [name for name in names if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(names)} images: {shortened(missing)}; complete it, or "
            f"{_ELSEWHERE}"
        )
    return [str(folder / files[name]) for name in names]
