"""Pascal VOC 2012 with masks of classes, and the further masks of SBD: train_aug and val."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from sspyr_mm.datasets.preparation.parts import Part
from sspyr_mm.files import whole_file
from sspyr_mm.machine import num_cores

VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
VOC_MD5 = "6cd6e144f989b92b3379bac3b3de84fd"
SBD_URL = (
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
    "benchmark.tgz"
)
SBD_MD5 = "82b4d87ceb2ed10f6038a1cba92111cb"
TREE = Path("VOCdevkit", "VOC2012")
SBD = Path("benchmark_RELEASE", "dataset")
NUM_CLASSES = 21  # with the background


@dataclass(frozen=True)
class MaskCounts:
    """How many images the lists of ``ImageSets/Segmentation`` name.

    Args:
        train: VOC's own.
        val: VOC's own.
        aug: Those of SBD that are in neither; with ``train`` they are train_aug.
    """

    train: int = 1464
    val: int = 1449
    aug: int = 9118


def voc12_parts(
    counts: MaskCounts | None = None, *, voc_md5: str = VOC_MD5, sbd_md5: str = SBD_MD5
) -> list[Part]:
    """The archives of VOC 2012 and SBD.

    Args:
        counts: What they must hold; default: the official numbers.
        voc_md5: Of VOC's archive.
        sbd_md5: Of SBD's archive.

    Returns:
        The parts; that of SBD makes ``SegmentationClassAug`` and ``aug.txt`` from its archive.
    """
    counts = counts or MaskCounts()
    return [
        Part(
            "VOC2012 trainval",
            VOC_URL,
            voc_md5,
            _find("SegmentationClass", {"train": counts.train, "val": counts.val}),
        ),
        Part(
            "SBD",
            SBD_URL,
            sbd_md5,
            _find("SegmentationClassAug", {"aug": counts.aug}),
            build_aug,
        ),
    ]


def build_aug(folder: Path) -> None:
    """Writes ``SegmentationClassAug/*.png`` and ``aug.txt`` of VOC2012, as far as SBD and VOC are unpacked.

    Masks that are there are left alone; the list comes last.

    Args:
        folder: With ``VOCdevkit`` and ``benchmark_RELEASE``.

    Raises:
        ValueError: If a file of SBD can't be read, or scipy, which reads it, is missing.

    Source: the lists and masks are those of mmsegmentation tools/dataset_converters/voc_aug.py:15-88.
    Deviation: the list is sorted, theirs is in the order of a set; masks of val, which nothing reads, are not written.
    """
    lists = folder / TREE / "ImageSets" / "Segmentation"
    own, further = (
        [lists / "train.txt", lists / "val.txt"],
        [folder / SBD / name for name in ("train.txt", "val.txt")],
    )
    if not all(path.is_file() for path in (*own, *further)):
        return
    ids = sorted(_ids(further) - _ids(own))
    masks = folder / TREE / "SegmentationClassAug"
    wanted = [one for one in ids if not (masks / f"{one}.png").is_file()]
    if wanted:
        print(f"  converting {len(wanted)} masks", flush=True)
        masks.mkdir(exist_ok=True)
        _convert_all(folder / SBD / "cls", masks, wanted)
    with whole_file(lists / "aug.txt") as partial_file:
        partial_file.write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")


def _convert_all(source: Path, target: Path, ids: Sequence[str]) -> None:
    try:
        import scipy.io  # noqa: F401
    except ImportError as error:
        raise ValueError(f"SBD's masks are read by scipy: pip install scipy ({error})") from error
    # Threads: most of it is zlib's work, and a process would first import torch.
    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        list(pool.map(partial(_convert, source, target), ids))


def _convert(source: Path, target: Path, name: str) -> None:
    """One mask: uint8 (height, width), 0 is the background."""
    from scipy.io import loadmat

    path = source / f"{name}.mat"
    try:
        mask = loadmat(path)["GTcls"][0]["Segmentation"][0]
        if mask.ndim != 2 or mask.min() < 0 or mask.max() >= NUM_CLASSES:
            raise ValueError(f"shape {mask.shape}, classes {mask.min()} to {mask.max()}")
    except Exception as error:  # scipy's reader raises arbitrary exceptions on damaged files
        raise ValueError(
            f"{path} is not a mask of SBD ({type(error).__name__}: {error}): remove benchmark_RELEASE, and have it "
            "unpacked again"
        ) from error
    with whole_file(target / f"{name}.png") as partial_file:
        Image.fromarray(mask.astype(np.uint8)).save(partial_file, "PNG")


def _ids(lists: Sequence[Path]) -> set[str]:
    return {one for path in lists for one in path.read_text(encoding="utf-8").split()}


def _find(masks: str, counts: dict[str, int]) -> Callable[[Path], tuple[bool, str]]:
    def find(folder: Path) -> tuple[bool, str]:
        findings = [_count(folder / TREE, masks, name, wanted) for name, wanted in counts.items()]
        return all(done for done, _ in findings), "; ".join(found for _, found in findings)

    return find


def _count(tree: Path, masks: str, name: str, wanted: int) -> tuple[bool, str]:
    path = tree / "ImageSets" / "Segmentation" / f"{name}.txt"
    if not path.is_file():
        return False, f"no {path}"
    ids = _ids([path])
    if name == "aug" and (shared := ids & _ids([path.with_name("val.txt")])):
        return False, f"{path} names {len(shared)} images of val, such as {min(shared)}: remove it"
    images = sum((tree / "JPEGImages" / f"{one}.jpg").is_file() for one in ids)
    masked = sum((tree / masks / f"{one}.png").is_file() for one in ids)
    found = f"{name}: {images} images and {masked} masks in {tree}"
    done = len(ids) == images == masked == wanted
    return done, found if done else f"{found}, {wanted} of each wanted"
