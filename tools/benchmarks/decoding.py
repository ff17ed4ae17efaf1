"""Why images are decoded and resized as they are: ``python tools/benchmarks/decoding.py --images DIR --out OUT``.

Decoders of JPEGs beside OpenCV's; large photographs (mosaics of the given ones) decoded at the size their regions want
beside all of it; resizing beside Pillow's. CPU time of one core, medians, taken in turn; fidelity is the peak
signal-to-noise ratio (PSNR) in decibels. simplejpeg is measured where it is installed. Leaves OUT/decoding.json.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.cli.arguments import check_writable, positive_int
from sspyr_mm.datasets.transforms.loading import decode_rgb
from sspyr_mm.datasets.transforms.pyramid_view import resize
from sspyr_mm.files import configs_dir, whole_file
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.bench import device_name, versions
from sspyr_mm.speed.images import find_images
from sspyr_mm.speed.timing import cpu_ms, one_thread

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

QUALITY = 92
"""Of the mosaics' JPEGs: a camera's."""
SHRINKING = (1.3, 1.45, 1.75)
"""How many pixels become one where resizing is compared: ours antialiases from 1.5."""
SIDE = 224
"""Pixels of a resized region."""
WINDOWS = 8
"""Of each size that are compared."""

Decode = Callable[[bytes], np.ndarray]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="JPEG photographs")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path)
    parser.add_argument("--count", type=positive_int, default=96, help="images read (default 96)")
    parser.add_argument(
        "--megapixels", type=positive_int, nargs="+", default=[3, 12, 48], help="of mosaics"
    )
    args = parser.parse_args()
    try:
        check_writable("--out", str(args.out / "decoding.json"))
        args.files = read_jpegs(args.images, args.count)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return args


def read_jpegs(place: str, count: int) -> list[bytes]:
    """Bytes of upright colour JPEGs, of which every decoder should make the same picture.

    Raises:
        ValueError: If there is none.
    """
    found = []
    for path in find_images(place, count):
        with Image.open(path) as opened:
            upright = opened.getexif().get(0x0112, 1) == 1
            if (opened.format, opened.mode, upright) == ("JPEG", "RGB", True):
                found.append(Path(path).read_bytes())
    if not found:
        raise ValueError(f"--images {place}: no upright colour JPEG among them; give photographs")
    return found


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    """Decibels; infinite where both are the same."""
    error = np.mean((found.astype(np.float32) - wanted) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def decode_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


def decode_with_torchvision(data: bytes) -> np.ndarray:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()


def list_decoders() -> dict[str, Decode]:
    """OpenCV's, as the pipeline calls it, is the first."""
    decoders: dict[str, Decode] = {
        "opencv": decode_rgb,
        "pillow": decode_with_pillow,
        "torchvision": decode_with_torchvision,
    }
    if simplejpeg is not None:
        decoders["simplejpeg"] = simplejpeg.decode_jpeg
        decoders["simplejpeg, fast transform"] = lambda data: simplejpeg.decode_jpeg(
            data, fastdct=True
        )
    return decoders


def measure_decoders(files: Sequence[bytes]) -> dict[str, dict[str, float]]:
    """Milliseconds, share of images with OpenCV's very pixels, and PSNR of the worst of the others (None: no other)."""
    decoders = list_decoders()
    found = {}
    for name, ms in cpu_ms(decoders, files).items():
        against = [psnr(decoders[name](data), decode_rgb(data)) for data in files]
        differing = [db for db in against if db != float("inf")]
        found[name] = {
            "ms": ms,
            "same_pixels": 1 - len(differing) / len(files),
            "least_psnr": min(differing, default=None),
        }
    return found


def make_mosaic(pictures: Sequence[np.ndarray], megapixels: int) -> bytes:
    """A JPEG of 4:3, of photographs side by side at their own size: as sharp as a photograph gets."""
    height, width = round(np.sqrt(megapixels * 0.75e6)), round(np.sqrt(megapixels / 0.75e-6))
    mosaic = np.empty((height, width, 3), np.uint8)
    tile = min(min(picture.shape[:2]) for picture in pictures)
    for number, top in enumerate(range(0, height, tile)):
        for other, left in enumerate(range(0, width, tile)):
            place = mosaic[top : top + tile, left : left + tile]
            picture = pictures[(number * -(-width // tile) + other) % len(pictures)]
            place[...] = picture[: place.shape[0], : place.shape[1]]
    encoded = cv2.imencode(".jpg", mosaic[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return encoded.tobytes()


def measure_reduced(data: bytes, spec: PyramidSpec) -> dict[str, Any]:
    """Milliseconds of all of a photograph and of its reduction, and PSNR of regions against Pillow's Lanczos filter.

    Regions are cut from the reduction, by ours, and from all of it, by Pillow's bilinear filter, which most pipelines
    use: the former may lose no more than that. Windows are of mean area and of least, where a reduction has no pixel to
    spare.
    """
    full = decode_rgb(data)
    height, width = full.shape[:2]
    reduction = spec.reduction((height, width))
    small = decode_rgb(data, reduction=reduction)
    ms = cpu_ms(
        {"full": decode_rgb, "reduced": lambda data: decode_rgb(data, reduction=reduction)},
        [data] * 8,
    )
    found = {
        "size": [width, height],
        "reduction": reduction,
        "full_ms": ms["full"],
        "reduced_ms": ms["reduced"],
    }
    for name, place in (("mean", 0.5), ("least", 0.0)):
        ours, pillows = [], []
        for group in spec.groups:
            area = group.area[0] + place * (group.area[1] - group.area[0])
            for y, x, s in draw_windows(small.shape[:2], area):
                whole = full[
                    reduction * y : reduction * (y + s), reduction * x : reduction * (x + s)
                ]
                best = with_pillow(whole, group.region, Image.Resampling.LANCZOS)
                ours.append(psnr(resize(small[y : y + s, x : x + s], group.region), best))
                usual = with_pillow(whole, group.region, Image.Resampling.BILINEAR)
                pillows.append(psnr(usual, best))
        found |= {f"{name}_psnr": median(ours), f"{name}_pillow_psnr": median(pillows)}
    return found


def draw_windows(size: tuple[int, int], area: float) -> list[tuple[int, int, int]]:
    """Top, left and side of squares of that share of an image, where it is wide enough."""
    height, width = size
    side = min(int(np.sqrt(area * height * width)), height, width)
    rng = np.random.default_rng(0)
    return [
        (int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side)
        for _ in range(WINDOWS)
    ]


def with_pillow(crop: np.ndarray, side: int, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(crop).resize((side, side), resampling))


def measure_resizing(pictures: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """By how many pixels become one: milliseconds, and PSNR against Pillow's Lanczos filter, of ours and bilinear."""
    found = {}
    for factor in SHRINKING:
        size = round(factor * SIDE)
        crops = [p[:size, :size] for p in pictures if min(p.shape[:2]) >= size]
        filters = {
            "": lambda crop: resize(crop, SIDE),
            "pillow_": lambda crop: with_pillow(crop, SIDE, Image.Resampling.BILINEAR),
        }
        if not crops:
            continue
        ms = cpu_ms(filters, crops)
        best = [with_pillow(crop, SIDE, Image.Resampling.LANCZOS) for crop in crops]
        found[str(factor)] = {f"{name}ms": ms[name] for name in filters} | {
            f"{name}psnr": median(psnr(shrink(c), b) for c, b in zip(crops, best, strict=True))
            for name, shrink in filters.items()
        }
    return found


def main() -> None:
    args = parse_args()
    paper = Config.fromfile(configs_dir() / "ssprl/r50_coco_200e.py").model.pyramid
    spec = PyramidSpec.from_config(paper)
    pictures = [decode_rgb(data) for data in args.files]
    with one_thread():
        found = {
            "decoders": measure_decoders(args.files),
            "reduced": [
                measure_reduced(make_mosaic(pictures, megapixels), spec)
                for megapixels in args.megapixels
            ],
            "resizing": measure_resizing(pictures),
        }
    what = {"images": len(args.files), "device": device_name(torch.device("cpu"))}
    what["versions"] = versions()
    with whole_file(args.out / "decoding.json") as partial:
        partial.write_text(json.dumps({**found, **what}, indent=1) + "\n")
    for part in ("decoders", "resizing"):
        for name, row in found[part].items():
            print(f"{part}, {name}:", ", ".join(f"{k} {v}" for k, v in row.items()))
    for row in found["reduced"]:
        print("reduced:", ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
