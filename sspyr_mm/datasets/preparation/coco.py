"""COCO 2014 and 2017: images and instance annotations."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sspyr_mm.datasets.preparation.parts import Part

SERVER = "http://images.cocodataset.org"
NUM_CATEGORIES = 80


@dataclass(frozen=True)
class CocoSplit:
    """What a split must hold.

    Args:
        num_images: Images, also in the annotations.
        num_annotations: Instances.
        md5: Of the archive of its images.
    """

    num_images: int
    num_annotations: int
    md5: str


SPLITS = {
    "train2014": CocoSplit(82783, 604907, "0da8c0bd3d6becc4dcb32757491aca88"),
    "val2014": CocoSplit(40504, 291875, "a3d79f5ed8d289b7a7554ce06a5782b3"),
    "train2017": CocoSplit(118287, 860001, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val2017": CocoSplit(5000, 36781, "442b8da7639aecaf257c1dceb8ba8c80"),
}
ANNOTATIONS_MD5 = {
    "2014": "0a379cfc70b0e71301e0f377548639bd",
    "2017": "f4bbac642086de4f52a3fdda2de5fa2c",
}


def coco_parts(
    names: Sequence[str],
    *,
    splits: Mapping[str, CocoSplit] = SPLITS,
    annotations_md5: Mapping[str, str] = ANNOTATIONS_MD5,
    num_categories: int = NUM_CATEGORIES,
) -> list[Part]:
    """The archives of some splits: annotations of each year first, they are small.

    Args:
        names: Such as train2014.
        splits: What they must hold.
        annotations_md5: Checksum of the annotations' archive by year.
        num_categories: In every json.

    Returns:
        The parts.
    """
    years = sorted({name[-4:] for name in names})
    annotations = [
        Part(
            f"annotations {year}",
            f"{SERVER}/annotations/annotations_trainval{year}.zip",
            annotations_md5[year],
            _find_annotations(
                {name: splits[name] for name in names if name.endswith(year)}, num_categories
            ),
        )
        for year in years
    ]
    images = [
        Part(
            f"images {name}",
            f"{SERVER}/zips/{name}.zip",
            splits[name].md5,
            _find_images(name, splits[name].num_images),
        )
        for name in names
    ]
    return annotations + images


def _find_images(name: str, wanted: int) -> Callable[[Path], tuple[bool, str]]:
    def find(folder: Path) -> tuple[bool, str]:
        count = sum(1 for _ in (folder / name).glob("*.jpg"))
        return count == wanted, f"{count} of {wanted} images in {folder / name}"

    return find


def _find_annotations(
    splits: Mapping[str, CocoSplit], num_categories: int
) -> Callable[[Path], tuple[bool, str]]:
    def find(folder: Path) -> tuple[bool, str]:
        findings = [
            _count(folder / "annotations" / f"instances_{name}.json", split, num_categories)
            for name, split in splits.items()
        ]
        return all(done for done, _ in findings), "; ".join(found for _, found in findings)

    return find


def _count(path: Path, split: CocoSplit, num_categories: int) -> tuple[bool, str]:
    if not path.is_file():
        return False, f"no {path}"
    try:
        content = json.loads(path.read_bytes())
        counts = [len(content[key]) for key in ("images", "annotations", "categories")]
    except (ValueError, KeyError, TypeError) as error:
        return False, f"{path} is not a COCO json of instances ({type(error).__name__}: {error})"
    wanted = [split.num_images, split.num_annotations, num_categories]
    found = f"{path}: {counts[0]} images, {counts[1]} annotations, {counts[2]} categories"
    return counts == wanted, found if counts == wanted else f"{found}, {wanted} wanted"
