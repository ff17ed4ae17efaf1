"""Conversion of pixel values to 8-bit RGB: deeper integers, floating point, transparency."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.ExifTags import Base

from sspyr_mm.datasets.finding.file_kinds import image_kind

BACKGROUND = (124, 116, 104)
"""Mean colour of ImageNet, which is about zero after normalisation."""
MAX_PIXELS = 180_000_000
"""Limit of pixels per image: 540 MB of RGB; Pillow's own limit is 179 million."""
_BLOCK = 1 << 22
"""Number of values that are converted at once."""


@dataclass(frozen=True)
class DecodeOptions:
    """Options of decoding, those of :class:`LoadRGBImage`; raises ValueError for a wrong type or range."""

    value_range: tuple[float, float] | None = None
    background: tuple[int, int, int] = BACKGROUND
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        limits = self.value_range
        if limits is not None and not (_are_numbers(limits, 2) and limits[0] < limits[1]):
            raise ValueError(f"value_range must be (LOW, HIGH) with LOW < HIGH, got {limits!r}")
        if not _are_numbers(self.background, 3) or not all(0 <= v <= 255 for v in self.background):
            raise ValueError(f"background must be (RED, GREEN, BLUE), each 0 to 255, got {self.background!r}")
        if not _are_numbers([self.max_pixels], 1) or self.max_pixels < 1:
            raise ValueError(f"max_pixels must be a number >= 1, got {self.max_pixels!r}")


def _are_numbers(values: object, count: int) -> bool:
    if not isinstance(values, (tuple, list)) or len(values) != count:
        return False
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)  # booleans are not numbers


def to_8_bits(
    values: np.ndarray, *, white: int | None = None, value_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Maps pixel values of any type linearly to 0 to 255; values outside of the range are clipped.

    The range is the first that applies of:

    1. ``value_range``, if given;
    2. 0 to ``white``, the largest value by the bit-depth tag of the file, unless there are larger values;
    3. integers without negative values: 0 to ``2**n - 1`` with the smallest ``n >= 8`` that covers the largest value,
       so that 10 or 12 bits in a 16-bit file keep black at 0 and are as bright as in a 10-bit or 12-bit file;
    4. floating point within 0 to 1: 0 to 1; within 0 to 255: 0 to 255;
    5. anything else (negative values, elevations, Hounsfield units): the smallest to the largest finite value.

    The result has the shape of ``values``. 8-bit values are unchanged, and NaN becomes black.
    """
    if values.dtype == np.uint8:
        return values
    low, high = value_range or _range(values, white)
    result = np.empty(values.shape, np.uint8)
    for rows in _blocks(values):
        scaled = (np.nan_to_num(values[rows], nan=low).astype(np.float64) - low) * (255 / max(high - low, 1e-12))
        result[rows] = (scaled.clip(0, 255) + 0.5).astype(np.uint8)
    return result


def _blocks(values: np.ndarray) -> Iterator[slice]:
    """Yields slices of rows: intermediate floating point of a whole large image would take gigabytes."""
    step = max(1, _BLOCK * len(values) // max(1, values.size))
    for start in range(0, len(values), step):
        yield slice(start, start + step)


def _range(values: np.ndarray, white: int | None) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if finite.size == 0:
        return 0.0, 1.0
    smallest, largest = finite.min().item(), finite.max().item()
    if smallest < 0:
        return smallest, largest
    if white is not None and largest <= white:
        return 0, white
    if values.dtype.kind in "iu":
        return 0, 2 ** max(8, int(largest).bit_length()) - 1
    for high in (1, 255):
        if largest <= high:
            return 0, high
    return smallest, largest


def blend(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Composites an (H, W, 3) uint8 image with (H, W) uint8 alpha on a colour, which hides transparent colours.

    Alpha that is zero everywhere is ignored, because some programs write it without meaning.
    """
    if alpha.min() == 255 or not alpha.any():
        return colour
    result = np.empty_like(colour)
    for rows in _blocks(colour):
        weight = alpha[rows, :, None].astype(np.float32) / 255
        mixed = colour[rows] * weight + np.asarray(background, np.float32) * (1 - weight)
        result[rows] = (mixed + 0.5).astype(np.uint8)
    return result


def flatness(image: np.ndarray) -> str | None:
    """Returns "constant" (no channel varies by more than 2), "nearly black" (no value above 15), or None."""
    height, width = image.shape[:2]
    # Four pixels almost always suffice, at no cost.
    few = [image[height * i // 5, width * i // 5].tolist() for i in range(1, 5)]
    if max(map(max, few)) > 15 and any(max(c) - min(c) > 2 for c in zip(*few, strict=True)):
        return None
    low, high = image.min((0, 1)), image.max((0, 1))
    if (high - low).max() <= 2:
        return "constant"
    return "nearly black" if high.max() <= 15 else None


def imdecode(data: bytes, mode: int) -> np.ndarray | None:
    """Decodes with OpenCV and a flag ``cv2.IMREAD_*``; None if OpenCV cannot read the file."""
    if not _has_possible_chunks(data):
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:  # for example, a header with more pixels than OpenCV allows
        return None


def _has_possible_chunks(data: bytes) -> bool:
    """Returns False for a PNG with a chunk longer than the file: OpenCV allocates it, up to 4 GB, before it reads."""
    at = 8
    while data[:4] == b"\x89PNG" and at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 8 + length > len(data):
            return False
        at += 12 + length
    return True


def is_deep(data: bytes, opened: Image.Image | None, tags: dict[int, Any]) -> bool:
    """Returns whether the file has more than 8 bits per channel; arguments as in :func:`decode_deep`."""
    if tags:
        formats = tags.get(Base.SampleFormat, (1,))
        return max(tags.get(Base.BitsPerSample, (1,))) > 8 or any(value not in (1, 4) for value in formats)
    if opened is None:
        return True
    if opened.format == "PNG":
        return data[24] == 16
    return opened.mode[0] in "IF"


def decode_deep(
    data: bytes, opened: Image.Image | None, tags: dict[int, Any], options: DecodeOptions
) -> np.ndarray | None:
    """Decodes an image with more than 8 bits per channel to (H, W, 3) uint8 RGB; None if its layout is not supported.

    ``opened`` is None if Pillow does not support the format; ``tags`` are those of a TIFF, else empty.
    """
    values, white = _deep_values(data, opened, tags)
    if values is None:
        return None
    if tags and values.dtype == np.int32 and 1 in tags.get(Base.SampleFormat, (1,)):
        values = values.view(np.uint32)  # OpenCV and Pillow have no uint32 and return int32
    colour = to_8_bits(values[..., :3], white=white, value_range=options.value_range)
    colour = np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))
    if tags.get(Base.PhotometricInterpretation) == 0:  # white is zero
        colour = 255 - colour
    # A fourth channel of a TIFF may be anything, such as infrared.
    has_alpha = not tags or any(value in (1, 2) for value in tags.get(Base.ExtraSamples, ()))
    if has_alpha and values.shape[2] == 4:
        opaque = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        alpha = to_8_bits(values[..., 3], value_range=(0, opaque))
        colour = blend(colour, alpha, options.background)
    if opened is not None and opened.format == "PNG" and b"eXIf" in data:
        upright = Image.fromarray(colour)
        upright.getexif()[Base.Orientation] = opened.getexif().get(Base.Orientation, 1)
        colour = np.asarray(ImageOps.exif_transpose(upright))
    return colour


def _deep_values(data: bytes, opened: Image.Image | None, tags: dict[int, Any]) -> tuple[np.ndarray | None, int | None]:
    """Returns the values of the file, (H, W, C) with C of RGB(A) or grey, and the largest value by its tags."""
    is_ppm = opened is not None and opened.format == "PPM"
    values = None if is_ppm else imdecode(data, cv2.IMREAD_UNCHANGED)
    if values is not None:
        values = np.atleast_3d(values)
        order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(values.shape[2], [0])
        return values[..., order], _stated_white(data, tags)
    if opened is None:
        return None, None
    if opened.mode[0] in "IF":  # Pillow scales PPM by the file's maximum
        return np.asarray(opened)[..., None], 65535 if is_ppm else None
    return np.asarray(opened.convert("RGB")), None


def _stated_white(data: bytes, tags: dict[int, Any]) -> int | None:
    """Returns the largest value by the tags (TIFF MaxSampleValue, PNG sBIT), None if they do not limit it."""
    if tags:
        bits = max(tags.get(Base.BitsPerSample, (16,)))
        if 8 < bits < 16:  # OpenCV shifts these to the upper bits of 16
            return 65535
        largest = max(tags.get(Base.MaxSampleValue, (0,)))
        return largest if 0 < largest < 2**bits - 1 else None
    at = data.find(b"sBIT", 8, data.find(b"IDAT"))
    if data[:4] != b"\x89PNG" or at < 0:
        return None
    bits = max(data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")], default=16)
    return 2**bits - 1 if 0 < bits < 16 else None


def tiff_tags(data: bytes) -> dict[int, Any]:
    """Returns the tags of the first image of a TIFF, empty for other formats; also for layouts unknown to Pillow."""
    if image_kind(data) != "TIFF":
        return {}
    header = data[: 16 if b"+" in data[:4] else 8]  # 16 bytes in a BigTIFF
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    tags = dict(directory)
    for tag in (Base.BitsPerSample, Base.MaxSampleValue, Base.ExtraSamples, Base.SampleFormat):
        if tag in tags and not isinstance(tags[tag], tuple):
            tags[tag] = (tags[tag],)
    return tags
