"""Reasons why a file cannot be decoded, with remedies."""

from sspyr_mm.datasets.finding.file_kinds import image_kind, register_heif
from sspyr_mm.datasets.transforms.decoding import image_size
from sspyr_mm.datasets.transforms.pixel_values import DecodeOptions


class UnreadableImageError(ValueError):
    """Raised when images that a run needs cannot be read; the message is one line with the remedy."""

    @property
    def summary(self) -> str:
        """Message without the traceback that a loader adds to errors of its workers."""
        return str(self).rstrip().rpartition(f"{type(self).__name__}: ")[2]


def describe_problem(data: bytes, options: DecodeOptions) -> str:
    """Describes why :func:`decode_rgb` returned None for a file, in words that follow the path of the file."""
    if not data.strip(b"\0"):
        return "an empty file" if not data else f"only zeros ({len(data)} bytes)"
    size = image_size(data)
    if size is not None and size[0] * size[1] > options.max_pixels:
        return f"{size[1]} x {size[0]} pixels, more than the limit of {options.max_pixels} (max_pixels of LoadRGBImage)"
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
