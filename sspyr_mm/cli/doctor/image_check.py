"""Checks of images: the data sets of the shipped configs, and the paths given by ``--data``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sspyr_mm.cli.doctor.finding import NOTE, OK, PROBLEM, Finding, last_line

# Data sets of the shipped configs, as links below the working directory -> configs that read them.
DATA_LINKS = {
    "data/coco": "configs/ssprl/r50_coco_*.py",
    "data/imagenet": "configs/ssprl/r50_in1k_*.py",
    "data/VOCdevkit/VOC2007": "linear_voc07 and faster-rcnn of configs/benchmarks",
    "data/VOCdevkit/VOC2012": "fcn and faster-rcnn of configs/benchmarks",
}
NUM_DECODED = 8


def check_links() -> Iterator[Finding]:
    """Checks the data sets of the shipped configs below the working directory."""
    for name, use in DATA_LINKS.items():
        path = Path(name)
        if path.is_symlink() and not path.exists():
            found = f"link to {os.readlink(path)}, which does not exist"
            yield Finding(name, NOTE, found, f"ln -sfn /path/to/{path.name} {name}")
        elif not path.exists():
            yield Finding(name, NOTE, "missing", f"needed by {use}: ln -s /path/to/{path.name} {name}")
        elif path.is_dir() and not any(path.iterdir()):
            yield Finding(name, NOTE, "empty", f"needed by {use}: fill it, or replace it by a link")
        elif not os.access(path, os.R_OK | os.X_OK):
            yield Finding(name, NOTE, "not readable", f"chmod -R u+rX {path.resolve()}")
        else:
            yield Finding(name, OK, str(path.resolve()))


def check_data(path: str) -> Finding:
    """Lists images like training does, and decodes some of them."""
    try:
        from sspyr_mm.datasets.unlabelled import UnlabelledImages
    except Exception as error:
        return Finding(path, PROBLEM, f"not checked: {last_line(error)}", "fix the installed packages first")
    try:
        paths = UnlabelledImages(path, lazy_init=True).list_images()
    except (OSError, ValueError) as error:
        return Finding(path, PROBLEM, str(error), "see the message")
    step = max(1, len(paths) // NUM_DECODED)
    tried = paths[::step][:NUM_DECODED]
    bad = [f"{image} ({why})" for image in tried if (why := _decode_error(image))]
    if not bad:
        return Finding(path, OK, f"{len(paths)} images, {len(tried)} tried and decoded")
    found = f"{len(paths)} images; {len(bad)} of {len(tried)} tried can't be decoded: {bad[0]}"
    remedy = "check that the copy is complete; remove or replace such files (training skips each of them)"
    return Finding(path, PROBLEM if len(bad) == len(tried) else NOTE, found, remedy)


def _decode_error(path: str) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's decoders can raise anything
        return f"{type(error).__name__}: {last_line(error)}"
    return None
