"""Pascal VOC 2007, and VOC 2012 with the additional masks of SBD: train_aug and val."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from sspyr_mm.datasets.preparation.archives import Part, Split
from sspyr_mm.datasets.text import read_xml
from sspyr_mm.files import whole_file
from sspyr_mm.machine import num_cores

VOC07_SPLITS = {
    "trainval": Split(5011, 12608, DATASET_YEAR_DICT["2007"]["md5"]),
    "test": Split(4952, 12032, DATASET_YEAR_DICT["2007-test"]["md5"]),
}
# Images in each list of ``ImageSets/Segmentation``; aug is SBD without train and val, train_aug is train and aug.
VOC12_COUNTS = {"train": 1464, "val": 1449, "aug": 9118}
NUM_CLASSES = 21  # with the background

_VOC07 = Path("VOCdevkit", "VOC2007")
_VOC12 = Path("VOCdevkit", "VOC2012")
_SBD = Path("benchmark_RELEASE", "dataset")


def voc07_parts(splits: Mapping[str, Split] = VOC07_SPLITS) -> list[Part]:
    """Returns the archives of VOC 2007."""
    urls = {"trainval": DATASET_YEAR_DICT["2007"]["url"], "test": DATASET_YEAR_DICT["2007-test"]["url"]}
    return [
        Part(f"VOC2007 {name}", urls[name], split.md5, partial(_check_voc07, name, split))
        for name, split in splits.items()
    ]


def _check_voc07(name: str, split: Split, folder: Path) -> Iterator[tuple[bool, str]]:
    tree = folder / _VOC07
    path = tree / "ImageSets" / "Main" / f"{name}.txt"
    if not path.is_file():
        yield False, f"no {path}"
        return
    names = path.read_text(encoding="utf-8").split()
    images = sum((tree / "JPEGImages" / f"{one}.jpg").is_file() for one in names)
    annotations = objects = 0
    try:
        for path in (tree / "Annotations" / f"{one}.xml" for one in names):
            if path.is_file():
                annotations += 1
                items = read_xml(path).findall("object")
                objects += sum(not int(item.findtext("difficult") or 0) for item in items)
    except ValueError as error:
        yield False, f"{path} cannot be read: {error}"
        return
    found = f"{images} images, {annotations} annotations, {objects} objects that are not difficult in {tree}"
    expected = split.num_images, split.num_images, split.num_objects
    complete = (images, annotations, objects) == expected and len(names) == split.num_images
    yield complete, found if complete else f"{found}; expected {', '.join(map(str, expected))}"


def voc12_parts(
    counts: Mapping[str, int] = VOC12_COUNTS,
    *,
    voc_md5: str = DATASET_YEAR_DICT["2012"]["md5"],
    sbd_md5: str = SBDataset.md5,
) -> list[Part]:
    """Returns the archives of VOC 2012 and SBD; SBD's masks become ``SegmentationClassAug`` and ``aug.txt``."""
    own = {name: counts[name] for name in ("train", "val")}
    check_own = partial(_check_masks, "SegmentationClass", own)
    check_aug = partial(_check_masks, "SegmentationClassAug", {"aug": counts["aug"]})
    return [
        Part("VOC2012 trainval", DATASET_YEAR_DICT["2012"]["url"], voc_md5, check_own),
        Part("SBD", SBDataset.url, sbd_md5, check_aug, build_aug),
    ]


def _check_masks(masks: str, counts: Mapping[str, int], folder: Path) -> Iterator[tuple[bool, str]]:
    tree = folder / _VOC12
    for name, expected in counts.items():
        path = tree / "ImageSets" / "Segmentation" / f"{name}.txt"
        if not path.is_file():
            yield False, f"no {path}"
            continue
        ids = _ids(path)
        if name == "aug" and (shared := ids & _ids(path.with_name("val.txt"))):
            yield False, f"{path} lists {len(shared)} images of val, such as {min(shared)}; remove it"
            continue
        images = sum((tree / "JPEGImages" / f"{one}.jpg").is_file() for one in ids)
        masked = sum((tree / masks / f"{one}.png").is_file() for one in ids)
        found = f"{name}: {images} images and {masked} masks in {tree}"
        complete = len(ids) == images == masked == expected
        yield complete, found if complete else f"{found}, expected {expected} of each"


def _ids(*lists: Path) -> set[str]:
    return {one for path in lists for one in path.read_text(encoding="utf-8").split()}


def build_aug(folder: Path) -> None:
    """Writes ``SegmentationClassAug/*.png`` and ``aug.txt`` of VOC 2012, if both VOC and SBD are extracted.

    Existing masks are kept; the list is written last. Raises ValueError if a file of SBD cannot be read.

    Source: the lists and masks are those of mmsegmentation tools/dataset_converters/voc_aug.py:15-88.
    Deviation: the list is sorted instead of in the order of a set; the unused masks of val are not written.
    """
    lists = folder / _VOC12 / "ImageSets" / "Segmentation"
    own = [lists / "train.txt", lists / "val.txt"]
    additional = [folder / _SBD / "train.txt", folder / _SBD / "val.txt"]
    if not all(path.is_file() for path in (*own, *additional)):
        return
    ids = sorted(_ids(*additional) - _ids(*own))
    masks = folder / _VOC12 / "SegmentationClassAug"
    missing = [one for one in ids if not (masks / f"{one}.png").is_file()]
    if missing:
        print(f"  converting {len(missing)} masks", flush=True)
        masks.mkdir(exist_ok=True)
        # Threads: zlib takes most of the time and releases the lock.
        with ThreadPoolExecutor(min(8, num_cores())) as pool:
            list(pool.map(partial(_convert, folder / _SBD / "cls", masks), missing))
    with whole_file(lists / "aug.txt") as partial_file:
        partial_file.write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")


def _convert(source: Path, target: Path, name: str) -> None:
    path = source / f"{name}.mat"
    try:
        mask = loadmat(path)["GTcls"][0]["Segmentation"][0]
        if mask.ndim != 2 or mask.min() < 0 or mask.max() >= NUM_CLASSES:
            raise ValueError(f"shape {mask.shape}, classes {mask.min()} to {mask.max()}")
    except Exception as error:  # scipy's reader raises arbitrary exceptions on damaged files
        raise ValueError(
            f"{path} is not a mask of SBD ({type(error).__name__}: {error}); remove benchmark_RELEASE and run this "
            "command again"
        ) from error
    with whole_file(target / f"{name}.png") as partial_file:
        Image.fromarray(mask.astype(np.uint8)).save(partial_file, "PNG")
