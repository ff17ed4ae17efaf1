"""Compares ways to decode and resize images: ``python tools/speed/decoding.py --images DIR --out OUT``.

Compares JPEG decoders with OpenCV's (simplejpeg if it is installed), reduced decoding of large photographs (mosaics of
the given ones) with full decoding, and resizing with Pillow's. Times are medians of the CPU time of one core, measured
in turn; fidelity is the peak signal-to-noise ratio (PSNR) in decibels. Writes OUT/decoding.json.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from outputs import require_writable
from PIL import ExifTags, Image
from torchvision.io import ImageReadMode, decode_jpeg

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.cli.arguments import positive_int
from sspyr_mm.datasets.transforms.cropping import resize
from sspyr_mm.datasets.transforms.decoding import decode_rgb
from sspyr_mm.files import write_json
from sspyr_mm.pyramid import GroupSpec, PyramidSpec
from sspyr_mm.speed.bench import describe_machine, paper_pyramid
from sspyr_mm.speed.inputs import find_images
from sspyr_mm.speed.timing import cpu_ms

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

QUALITY = 92
"""JPEG quality of the mosaics, as in cameras."""
SHRINKING = (1.3, 1.45, 1.75)
"""Compared factors of resizing; ours antialiases from 1.5."""
SIDE = 224
"""Side of a resized region in pixels."""
MOST_MEGAPIXELS = 500
"""Maximum size of a mosaic; OpenCV's limit is twice as large."""
WINDOWS = 8
"""Number of compared windows per size."""

Decode = Callable[[bytes], np.ndarray]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, metavar="DIR", help="JPEG photographs")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path)
    parser.add_argument("--count", type=positive_int, default=96, help="number of images (default 96)")
    parser.add_argument(
        "--megapixels",
        type=positive_int,
        nargs="+",
        default=[2, 8, 31],
        metavar="N",
        help="sizes of mosaics (default 2 8 31: the smallest reduced to a half, a quarter, an eighth)",
    )
    args = parser.parse_args()
    if max(args.megapixels) > MOST_MEGAPIXELS:
        parser.error(f"--megapixels {max(args.megapixels)}: the maximum is {MOST_MEGAPIXELS}")
    require_writable(parser, "--out", args.out / "decoding.json")
    try:
        args.files = read_jpegs(args.images, args.count)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return args


def read_jpegs(place: str, count: int) -> list[bytes]:
    """Reads upright colour JPEGs of sufficient size, which all decoders should decode alike; ValueError without one."""
    found = []
    for path in find_images(place, count):
        with Image.open(path) as opened:
            upright = opened.getexif().get(ExifTags.Base.Orientation, 1) == 1
            coloured = opened.format == "JPEG" and opened.mode == "RGB"
            if coloured and upright and min(opened.size) >= SIDE:
                found.append(Path(path).read_bytes())
    if not found:
        raise ValueError(
            f"--images {place}: no upright colour JPEG of {SIDE} px or more among the first {count}; give photographs"
        )
    return found


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    """Returns decibels; 130 if both are equal."""
    error = np.mean((found.astype(np.float32) - wanted) ** 2)
    return float(10 * np.log10(255**2 / max(error, 6.5e-9)))


def decode_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as opened:
        return np.asarray(opened)


def decode_with_torchvision(data: bytes) -> np.ndarray:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_jpeg(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()


def list_decoders() -> dict[str, Decode]:
    """Lists the decoders; the first is OpenCV's, as the pipeline calls it."""
    decoders: dict[str, Decode] = {
        "opencv": decode_rgb,
        "pillow": decode_with_pillow,
        "torchvision": decode_with_torchvision,
    }
    if simplejpeg is not None:
        decode = partial(simplejpeg.decode_jpeg, strict=False)
        decoders["simplejpeg"] = decode
        decoders["simplejpeg, fast transform"] = partial(decode, fastdct=True)
    return decoders


def measure_decoders(files: Sequence[bytes], images: Sequence[np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Measures milliseconds, share of images equal to OpenCV's, and lowest PSNR of the others (None without others).

    ``images`` are the files as decoded by OpenCV.
    """
    decoders = list_decoders()
    found = {}
    for name, ms in cpu_ms(decoders, files).items():
        pairs = zip(map(decoders[name], files), images, strict=True)
        differing = [psnr(*pair) for pair in pairs if not np.array_equal(*pair)]
        found[name] = {
            "ms": ms,
            "same_pixels": 1 - len(differing) / len(files),
            "worst_psnr": min(differing, default=None),
        }
    return found


def make_mosaic(images: Sequence[np.ndarray], megapixels: int) -> bytes:
    """Encodes a 4:3 JPEG of photographs side by side in their original size, as sharp as a photograph gets."""
    # A decoder's reductions have whole pixels.
    height, width = (8 * round(np.sqrt(megapixels * 1e6 * r) / 8) for r in (3 / 4, 4 / 3))
    mosaic = np.empty((height, width, 3), np.uint8)
    tile = min(min(image.shape[:2]) for image in images)
    for number, top in enumerate(range(0, height, tile)):
        for other, left in enumerate(range(0, width, tile)):
            place = mosaic[top : top + tile, left : left + tile]
            image = images[(number * -(-width // tile) + other) % len(images)]
            place[...] = image[: place.shape[0], : place.shape[1]]
    encoded = cv2.imencode(".jpg", mosaic[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return encoded.tobytes()


def measure_reduced(data: bytes, spec: PyramidSpec) -> dict[str, Any]:
    """Measures milliseconds of full and reduced decoding, and PSNR of regions against Pillow's Lanczos filter.

    Our regions are cut from the reduced image. For comparison, Pillow's bilinear filter, which most pipelines use, cuts
    them from the full one. Windows are squares of mean area (at most the image's shorter side) and of least area.
    """
    full = decode_rgb(data)
    height, width = full.shape[:2]
    reduction = spec.views.reduction((height, width))
    small = decode_rgb(data, reduction=reduction)
    both = {"full": decode_rgb, "reduced": partial(decode_rgb, reduction=reduction)}
    ms = cpu_ms(both, [data] * 8)
    found = {"size": [width, height], "reduction": reduction, "full_ms": ms["full"], "reduced_ms": ms["reduced"]}
    for name, place in (("mean_area", 0.5), ("least_area", 0.0)):
        scales = [compare_regions(full, small, reduction, group, place) for group in spec.groups]
        worst = min(scales, key=lambda scale: scale["psnr"] - scale["pillow_psnr"])
        found |= {f"{name}_{key}": value for key, value in worst.items()}
    return found


def compare_regions(
    full: np.ndarray, small: np.ndarray, reduction: int, group: GroupSpec, place: float
) -> dict[str, float]:
    """Returns the median PSNR of regions of a scale; ``place``: 0 for its least area, 1 for its greatest."""
    ours, pillows = [], []
    area = group.area[0] + place * (group.area[1] - group.area[0])
    for y, x, s in draw_windows(small.shape[:2], area):
        whole = full[reduction * y : reduction * (y + s), reduction * x : reduction * (x + s)]
        image = Image.fromarray(np.ascontiguousarray(whole))
        best = with_pillow(image, group.region, Image.Resampling.LANCZOS)
        ours.append(psnr(resize(small[y : y + s, x : x + s], group.region), best))
        usual = with_pillow(image, group.region, Image.Resampling.BILINEAR)
        pillows.append(psnr(usual, best))
    return {"psnr": median(ours), "pillow_psnr": median(pillows)}


def draw_windows(size: tuple[int, int], area: float) -> list[tuple[int, int, int]]:
    """Returns top, left and side of squares with this share of the image's area, at most its shorter side."""
    height, width = size
    side = min(int(np.sqrt(area * height * width)), height, width)
    rng = np.random.default_rng(0)
    return [(int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side) for _ in range(WINDOWS)]


def with_pillow(image: Image.Image, side: int, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(image.resize((side, side), resampling))


def measure_resizing(images: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Measures, by factor, milliseconds and PSNR against Pillow's Lanczos filter, of ours and of Pillow's bilinear one.

    Ours reads a window of an array, Pillow's an image; both return an array.
    """
    found = {}
    for factor in SHRINKING:
        size = round(factor * SIDE)
        crops = [
            (crop, Image.fromarray(np.ascontiguousarray(crop)))
            for crop in (p[:size, :size] for p in images if min(p.shape[:2]) >= size)
        ]
        if not crops:
            continue
        filters = {
            "": lambda crop: resize(crop[0], SIDE),
            "pillow_": lambda crop: with_pillow(crop[1], SIDE, Image.Resampling.BILINEAR),
        }
        ms = cpu_ms(filters, crops)
        best = [with_pillow(image, SIDE, Image.Resampling.LANCZOS) for _, image in crops]
        found[str(factor)] = {f"{name}ms": ms[name] for name in filters} | {
            f"{name}psnr": median(psnr(shrink(c), b) for c, b in zip(crops, best, strict=True))
            for name, shrink in filters.items()
        }
    return found


def main() -> None:
    args = parse_args()
    spec = paper_pyramid()
    images = [decode_rgb(data) for data in args.files]
    found = {
        "decoders": measure_decoders(args.files, images),
        "reduced": [measure_reduced(make_mosaic(images, megapixels), spec) for megapixels in args.megapixels],
        "resizing": measure_resizing(images),
    }
    what = {"images": len(args.files), **describe_machine(torch.device("cpu"))}
    write_json(args.out / "decoding.json", {**found, **what})
    for part in ("decoders", "resizing"):
        for name, row in found[part].items():
            print(f"{part}, {name}:", ", ".join(f"{k} {v}" for k, v in row.items()))
    for row in found["reduced"]:
        print("reduced:", ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
