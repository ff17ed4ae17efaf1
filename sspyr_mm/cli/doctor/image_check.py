"""Images: those of the shipped configs, and those that are named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sspyr_mm.cli.doctor.finding import NOTE, OK, PROBLEM, Finding, last_line

# Data sets of the shipped configs, as links below the working directory, with what reads them.
DATA_LINKS = {
    "data/coco": "configs/ssprl/r50_coco_*.py",
    "data/imagenet": "configs/ssprl/r50_in1k_*.py",
    "data/VOCdevkit/VOC2007": "linear_voc07 and faster-rcnn of configs/benchmarks",
    "data/VOCdevkit/VOC2012": "fcn and faster-rcnn of configs/benchmarks",
}
NUM_DECODED = 8


def check_links() -> Iterator[Finding]:
    """Looks for the data sets of the shipped configs below the working directory.

    Yields:
        Finding: One for each place.
    """
    for name, use in DATA_LINKS.items():
        path = Path(name)
        if path.is_symlink() and not path.exists():
            found = f"a link to {os.readlink(path)}, which is not there"
            yield Finding(name, NOTE, found, f"ln -sfn /path/to/{path.name} {name}")
        elif not path.exists():
            remedy = f"{use} read it: ln -s /path/to/{path.name} {name}"
            yield Finding(name, NOTE, "not there", remedy)
        elif path.is_dir() and not any(path.iterdir()):
            yield Finding(name, NOTE, "empty", f"{use} read it: fill it, or remove it and link")
        elif not os.access(path, os.R_OK | os.X_OK):
            yield Finding(name, NOTE, "not readable", f"chmod -R u+rX {path.resolve()}")
        else:
            yield Finding(name, OK, str(path.resolve()))


def check_data(path: str) -> Iterator[Finding]:
    """Lists images as training would, and decodes a few.

    Args:
        path (str): A folder, a list file or a COCO annotation file.

    Yields:
        Finding: How many images there are, and which of the tried ones can't be decoded.
    """
    try:
        from sspyr_mm.datasets.unlabelled import UnlabelledImages
    except Exception as error:
        yield Finding(path, PROBLEM, f"not checked: {last_line(str(error))}", "mend the stack first")
        return
    try:
        paths = UnlabelledImages(path, lazy_init=True).list_images()
    except (OSError, ValueError) as error:
        yield Finding(path, PROBLEM, str(error), "see the message")
        return
    step = max(1, len(paths) // NUM_DECODED)
    tried = paths[::step][:NUM_DECODED]
    bad = [f"{image} ({why})" for image in tried if (why := _decode_error(image))]
    if not bad:
        yield Finding(path, OK, f"{len(paths)} images, {len(tried)} tried and decoded")
        return
    found = f"{len(paths)} images; {len(bad)} of {len(tried)} tried can't be decoded: {bad[0]}"
    remedy = "is the copy complete? remove or replace such files (training leaves them out one by one)"
    yield Finding(path, PROBLEM if len(bad) == len(tried) else NOTE, found, remedy)


def _decode_error(path: str) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises whatever its decoders do
        return f"{type(error).__name__}: {last_line(str(error))}"
    return None
