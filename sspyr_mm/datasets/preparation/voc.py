"""Pascal VOC 2007: trainval and test."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sspyr_mm.datasets.preparation.parts import Part

SERVER = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007"
TREE = Path("VOCdevkit", "VOC2007")


@dataclass(frozen=True)
class VocSplit:
    """What a split must hold.

    Args:
        num_images: Images, each with an annotation.
        num_objects: Objects that are not difficult.
        md5: Of its archive.
    """

    num_images: int
    num_objects: int
    md5: str


SPLITS = {
    "trainval": VocSplit(5011, 12608, "c52e279531787c972589f7e41ab4ae64"),
    "test": VocSplit(4952, 12032, "b6e924de25625d8de591ea690078ad9f"),
}


def voc_parts(splits: Mapping[str, VocSplit] = SPLITS) -> list[Part]:
    """The archives of VOC 2007.

    Args:
        splits: What they must hold.

    Returns:
        The parts.
    """
    return [
        Part(
            f"VOC2007 {name}", f"{SERVER}/VOC{name}_06-Nov-2007.tar", split.md5, _find(name, split)
        )
        for name, split in splits.items()
    ]


def _find(name: str, split: VocSplit) -> Callable[[Path], tuple[bool, str]]:
    def find(folder: Path) -> tuple[bool, str]:
        tree = folder / TREE
        path = tree / "ImageSets" / "Main" / f"{name}.txt"
        if not path.is_file():
            return False, f"no {path}"
        names = path.read_text(encoding="utf-8").split()
        images = sum((tree / "JPEGImages" / f"{one}.jpg").is_file() for one in names)
        try:
            annotations, objects = _count(tree, names)
        except (ElementTree.ParseError, ValueError) as error:
            return False, f"an annotation in {tree} can't be read: {error}"
        found = f"{images} images, {annotations} annotations, {objects} objects that are not difficult in {tree}"
        wanted = split.num_images, split.num_images, split.num_objects
        done = (images, annotations, objects) == wanted and len(names) == split.num_images
        return done, found if done else f"{found}; {', '.join(map(str, wanted))} wanted"

    return find


def _count(tree: Path, names: Sequence[str]) -> tuple[int, int]:
    """Annotations, and objects in them that are not difficult."""
    annotations = objects = 0
    for path in (tree / "Annotations" / f"{name}.xml" for name in names):
        if path.is_file():
            annotations += 1
            items = ElementTree.parse(path).getroot().findall("object")
            objects += sum(not int(item.findtext("difficult") or 0) for item in items)
    return annotations, objects
