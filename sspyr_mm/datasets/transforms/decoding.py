"""Decoding of image files to 8-bit RGB, and reasons why a file cannot be decoded.

OpenCV decodes JPEGs. Pillow reads the headers of other formats, of which OpenCV, the faster one, decodes plain images.
"""

import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageOps
from PIL.ExifTags import Base

from sspyr_mm.datasets.finding.file_kinds import image_kind, register_heif, stated_size
from sspyr_mm.datasets.transforms.pixel_values import DecodeOptions, blend, decode_deep, imdecode, is_deep, tiff_tags

# OpenCV 4.11 and later decode to RGB, which saves a pass over the pixels.
_DECODES_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
_CV2_MODE = cv2.IMREAD_COLOR_RGB if _DECODES_RGB else cv2.IMREAD_COLOR
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of the JPEG segments that contain the image size; the excluded markers are tables."""
_ADOBE_MARKER = 0xEE
_END_OF_JPEG = b"\xff\xd9"
_DEFAULTS = DecodeOptions()
_STDERR = threading.RLock()


class UnreadableImageError(ValueError):
    """Raised when images that a run needs cannot be read; the message is one line with the remedy."""

    @property
    def summary(self) -> str:
        """Message without the traceback that a loader adds to errors of its workers."""
        return str(self).rstrip().rpartition(f"{type(self).__name__}: ")[2]


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Returns the height and width in the header of a JPEG, before any EXIF orientation; None for other formats."""
    frame = _jpeg_frame(data)
    return frame[:2] if frame else None


def _jpeg_frame(data: bytes) -> tuple[int, int, int, int, bool] | None:
    """Returns height, width, channels, offset of the frame segment, and whether Adobe's marker precedes it."""
    if data[:2] != b"\xff\xd8":
        return None
    at, adobe = 2, False
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            channels = data[at + 9] if at + 9 < len(data) else 0
            return height, width, channels, at, adobe
        adobe |= marker == _ADOBE_MARKER
        at += 2 + length
    return None


def decode_rgb(data: bytes, *, reduction: int = 1, options: DecodeOptions = _DEFAULTS) -> np.ndarray | None:
    """Decodes the bytes of an image file to (H, W, 3) uint8 RGB.

    Greyscale, palette and CMYK images are converted, EXIF orientation is applied, deeper images are mapped to 8 bits
    by :func:`to_8_bits`, and transparent areas get ``options.background``. A JPEG that lacks only its end marker is
    decoded; one that lacks image data is not. ``reduction`` is the factor, 1, 2, 4 or 8, by which a JPEG is decoded
    smaller, which is faster; other formats ignore it.

    Returns None if neither OpenCV nor Pillow can read the whole image, or it has more than ``options.max_pixels``.
    """
    frame = _jpeg_frame(data)
    if frame is None:
        return _decode_other(data, options)
    height, width, channels, at, adobe = frame
    if height * width > options.max_pixels:
        return None
    if not data.endswith(_END_OF_JPEG) and data.find(_END_OF_JPEG, at) < 0:
        return _decode_unfinished_jpeg(data, reduction)
    if channels == 4 and not adobe:
        return _decode_inks(data)
    image = _decode_plain(data, reduction)
    return _decode_other(data, options) if image is None else image


def describe_problem(data: bytes, options: DecodeOptions) -> str:
    """Describes why :func:`decode_rgb` returned None for a file, in words that follow the path of the file."""
    if not data.strip(b"\0"):
        return "an empty file" if not data else f"only zeros ({len(data)} bytes)"
    height, width = jpeg_size(data) or (0, 0)
    if not height:
        width, height = stated_size(data)
        with _quiet(), suppress(Exception):
            width, height = _open(data).size
    if height * width > options.max_pixels:
        return f"{width} x {height} pixels, more than the limit of {options.max_pixels} (max_pixels of LoadRGBImage)"
    kind = image_kind(data)
    if kind == "HEIC" and not register_heif():
        return "a HEIC image: pip install pillow-heif"
    if kind is not None:
        return f"a {kind} image that is truncated, damaged or of a layout that cannot be read"
    start = data[:64].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the image: run git lfs pull"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML or XML page, not an image"
    return "not an image that can be decoded"


def _decode_plain(data: bytes, reduction: int = 1) -> np.ndarray | None:
    """Decodes to 8-bit RGB with OpenCV."""
    mode = _REDUCED.get(reduction, _CV2_MODE)
    image = imdecode(data, mode)
    if image is None or (_DECODES_RGB and mode == _CV2_MODE):
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _decode_unfinished_jpeg(data: bytes, reduction: int) -> np.ndarray | None:
    """Decodes a JPEG without an end marker if its image data is complete.

    A decoder silently fills missing data with grey, but reads appended bytes as image data: the image is complete if
    appended bytes do not change it.
    """
    body = data.rstrip(b"\0")  # unwritten disk blocks
    body = body + b"\0\0" if len(body) < len(data) else body.rstrip(b"\xff")
    further = bytes((97 * i + 13) % 255 for i in range(256))
    with _quiet():
        # At full size: reduced decoding of a progressive JPEG needs only part of its data.
        image, other = (_decode_plain(body + more + _END_OF_JPEG) for more in (b"", further))
        if image is None or other is None or not np.array_equal(image, other):
            return None
        return image if reduction == 1 else _decode_plain(body + _END_OF_JPEG, reduction)


def _decode_inks(data: bytes) -> np.ndarray | None:
    """Decodes CMYK without Adobe's marker, for which OpenCV and Pillow assume the inverted inks of Adobe's files."""
    with _quiet(), suppress(Exception):
        return np.asarray(ImageChops.invert(ImageOps.exif_transpose(_open(data))).convert("RGB"))
    return None


def _decode_other(data: bytes, options: DecodeOptions) -> np.ndarray | None:
    """Decodes a file according to its header."""
    opened = None
    with _quiet(), suppress(Exception):  # Pillow and OpenCV raise arbitrary exceptions on damaged files
        with suppress(Exception):
            opened = _open(data)
        tags = tiff_tags(data)
        if tags and not opened:
            width, height = tags.get(Base.ImageWidth, 0), tags.get(Base.ImageLength, 0)
        else:
            width, height = opened.size if opened else stated_size(data)
        if not 0 < width * height <= options.max_pixels:
            return None
        if is_deep(data, opened, tags):
            return decode_deep(data, opened, tags, options)
        return _decode_8_bits(data, opened, options)
    return None


def _decode_8_bits(data: bytes, opened: Image.Image | None, options: DecodeOptions) -> np.ndarray | None:
    if opened is None:
        return _decode_plain(data)
    # An image is plain if OpenCV loses nothing: no alpha, inks or orientation (which it applies to PNG and TIFF).
    has_alpha = "transparency" in opened.info or opened.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    turned = opened.format not in ("PNG", "TIFF") and opened.getexif().get(Base.Orientation, 1) in range(2, 9)
    is_plain = opened.format not in ("PPM", "JPEG", "MPO") and not turned and not has_alpha
    if is_plain and (image := _decode_plain(data)) is not None:
        return image
    upright = ImageOps.exif_transpose(opened)
    if not has_alpha:
        return np.asarray(upright.convert("RGB"))
    pixels = np.asarray(upright.convert("RGBA"))
    return blend(pixels[..., :3].copy(), pixels[..., 3], options.background)


def _open(data: bytes) -> Image.Image:
    """Reads a header with Pillow, without Pillow's own limit of pixels."""
    if data[4:8] == b"ftyp":
        register_heif()
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(io.BytesIO(data))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses messages of OpenCV, libpng, libtiff and Pillow about a file; the caller reports it in one line."""
    # C libraries write to the stderr of the process: one thread at a time redirects it.
    with _STDERR, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kept = os.dup(2)
        except OSError:  # no stderr
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(null)
