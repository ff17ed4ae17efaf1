"""COCO 2014 and 2017: images and instance annotations."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from sspyr_mm.datasets.preparation.archives import Part, Split
from sspyr_mm.datasets.text import read_json

SERVER = "http://images.cocodataset.org"
COCO_SPLITS = {
    "train2014": Split(82783, 604907, "0da8c0bd3d6becc4dcb32757491aca88"),
    "val2014": Split(40504, 291875, "a3d79f5ed8d289b7a7554ce06a5782b3"),
    "train2017": Split(118287, 860001, "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val2017": Split(5000, 36781, "442b8da7639aecaf257c1dceb8ba8c80"),
}
ANNOTATIONS_MD5 = {"2014": "0a379cfc70b0e71301e0f377548639bd", "2017": "f4bbac642086de4f52a3fdda2de5fa2c"}


def coco_parts(
    names: Sequence[str],
    *,
    splits: Mapping[str, Split] = COCO_SPLITS,
    annotations_md5: Mapping[str, str] = ANNOTATIONS_MD5,
    num_categories: int = 80,
) -> list[Part]:
    """Returns the archives of splits: first the small ones with the annotations of each year, then the images."""
    parts = []
    for year in sorted({name[-4:] for name in names}):
        of_year = {name: splits[name] for name in names if name.endswith(year)}
        url = f"{SERVER}/annotations/annotations_trainval{year}.zip"
        check = partial(_check_annotations, of_year, num_categories)
        parts.append(Part(f"annotations {year}", url, annotations_md5[year], check))
    for name in names:
        check = partial(_check_images, name, splits[name].num_images)
        parts.append(Part(f"images {name}", f"{SERVER}/zips/{name}.zip", splits[name].md5, check))
    return parts


def _check_images(name: str, expected: int, folder: Path) -> Iterator[tuple[bool, str]]:
    count = sum(1 for _ in (folder / name).glob("*.jpg"))
    yield count == expected, f"{count} of {expected} images in {folder / name}"


def _check_annotations(splits: Mapping[str, Split], num_categories: int, folder: Path) -> Iterator[tuple[bool, str]]:
    for name, split in splits.items():
        path = folder / "annotations" / f"instances_{name}.json"
        if not path.is_file():
            yield False, f"no {path}"
            continue
        try:
            content = read_json(path)
            counts = [len(content[key]) for key in ("images", "annotations", "categories")]
        except (ValueError, KeyError, TypeError) as error:
            yield False, f"{path} is not a COCO instances file ({type(error).__name__}: {error})"
            continue
        expected = [split.num_images, split.num_objects, num_categories]
        found = f"{path}: {counts[0]} images, {counts[1]} annotations, {counts[2]} categories"
        yield counts == expected, found if counts == expected else f"{found}, expected {expected}"
