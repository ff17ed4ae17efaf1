"""File formats, detected by first bytes and by extension, and image sizes in headers."""

import functools
import importlib
import re
from typing import Literal

from PIL import Image

NUM_BYTES = 32
"""Number of first bytes of a file that :func:`image_kind` needs."""

_MARKS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF8",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JP2": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "HDR": (b"#?RADIANCE", b"#?RGBE"),
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
}
"""Brands in the first box of a file of the ISO base media format."""
_TEXT_SIZES = {
    "HDR": re.compile(rb"\n[-+][XY] +(\d{1,9}) +[-+][XY] +(\d{1,9})\s"),
    "PNM": re.compile(rb"(?:P[1-6Ff]\s+(?:#[^\n]*\n\s*)*|WIDTH +)(\d{1,9})\s+(?:HEIGHT +)?(\d{1,9})\s"),
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)

# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm", ".gif", ".avif", ".jp2", ".j2k", ".jpx", ".heic", ".heif", ".hif", ".hdr",
)
"""Extensions of image files, in lower case."""
OTHER_SUFFIXES = frozenset((
    ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".html", ".htm", ".yaml", ".yml", ".toml", ".ini", ".log",
    ".py", ".ipynb", ".pdf", ".zip", ".tar", ".gz", ".npy", ".npz", ".pt", ".pth", ".pkl", ".h5", ".parquet", ".mp4",
    ".mov", ".avi", ".mkv", ".webm", ".mp3", ".wav", ".db",
))
"""Extensions of other files that are common in folders of images: they are not opened."""
# fmt: on
_NEEDS_HEIF = (".heic", ".heif", ".hif")
_NEEDS_PLUGIN = {".avif": "AVIF", ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".jpx": "JPEG2000"}


def image_kind(head: bytes) -> str | None:
    """Returns the image format of a file by its first :data:`NUM_BYTES` bytes, readable or not; None for others."""
    for kind, marks in _MARKS.items():
        if head.startswith(marks):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"1234567Ff" and head[2:3] in (b"\n", b"\r", b" ", b"\t"):
        return "PNM"
    return None


def stated_size(data: bytes) -> tuple[int, int]:
    """Returns width and height in the header of a PNG, BMP, JPEG 2000, HDR or PNM; (0, 0) if none is found.

    For files that Pillow cannot open, and OpenCV, which does not return the size before it decodes, perhaps can.
    """

    def numbers(start: int, width: int, order: Literal["little", "big"]) -> tuple[int, int]:
        first, second = (int.from_bytes(data[at : at + width], order, signed=True) for at in (start, start + width))
        return abs(first), abs(second)

    kind, head = image_kind(data), data[:4096]
    if kind == "PNG":
        return numbers(16, 4, "big")
    if kind == "BMP":
        return numbers(18, 2 if data[14] == 12 else 4, "little")
    if kind == "JP2":
        at = head.find(b"ihdr")
        return numbers(at + 4, 4, "big")[::-1] if at > 0 else numbers(8, 4, "big")
    if found := _TEXT_SIZES[kind].search(head) if kind in _TEXT_SIZES else None:
        return int(found[1]), int(found[2])
    return 0, 0


@functools.cache
def register_heif() -> bool:
    """Registers pillow-heif with Pillow; returns whether it is installed."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


@functools.cache
def missing_reader(suffix: str) -> str | None:
    """Returns the package to install for an extension, or a format such as ``.heic``; None if none is missing."""
    if suffix in _NEEDS_HEIF and not register_heif():
        return "pillow-heif"
    if plugin := _NEEDS_PLUGIN.get(suffix):
        Image.init()
        return None if plugin in Image.OPEN else f"a Pillow with {plugin}"
    return None
