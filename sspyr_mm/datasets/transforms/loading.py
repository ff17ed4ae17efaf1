"""Decoding of whatever a folder of photographs holds."""

import io
from typing import Any

import cv2
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS
from PIL import Image, ImageOps

from sspyr_mm.pyramid import PyramidSpec

# OpenCV 4.11 and later spare a pass over the pixels.
_DECODES_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
_CV2_MODE = cv2.IMREAD_COLOR_RGB if _DECODES_RGB else cv2.IMREAD_COLOR


_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Segments of a JPEG that hold its size; those left out are tables."""


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width in a JPEG's header, before any EXIF orientation; None if it is none.

    Args:
        data: The file's bytes.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAME_MARKERS:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(height, "big"), int.from_bytes(width, "big")
        at += 2 + length
    return None


def decode_rgb(data: bytes, *, reduction: int = 1) -> np.ndarray | None:
    """Decodes an image file to RGB.

    Greyscale, palette, CMYK, alpha and 16-bit images are converted to 8-bit RGB, and EXIF orientation is applied.

    Args:
        data: The file's bytes.
        reduction: 1, 2, 4 or 8: a JPEG is decoded at that part of its size, which leaves most of the work undone.

    Returns:
        (H, W, 3) uint8, or None if neither OpenCV nor Pillow can read it.
    """
    if not data:
        return None
    # OpenCV is faster than Pillow, which knows some formats that OpenCV does not (GIF, some TIFF and PNG).
    mode = _REDUCED.get(reduction, _CV2_MODE)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:  # of a header that promises too many pixels, say
        image = None
    if image is not None:
        is_rgb = _DECODES_RGB and mode == _CV2_MODE
        return image if is_rgb else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except Exception:  # Pillow's readers raise whatever a broken file makes them trip over
        return None


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Reads and decodes an image; a broken one is reported and left out, not fatal.

    Required keys: ``img_path``. Modified keys: none; ``img_bytes``, where a data set has read the file already, is
    removed. Added keys: ``img`` (H, W, 3) uint8 RGB, ``ori_shape``, ``img_shape``.

    Args:
        backend_args: Of mmengine's file client, for images that are not on a local disk.
        skip_broken: Whether another image takes the place of a broken one. Without labels none is needed more than
            another; what has a label is.

    Large JPEGs are decoded at a half, a quarter or an eighth of their size where a pyramid is known
    (:class:`PyramidLinkHook` hands it over) and its regions have no use for more: see :meth:`PyramidSpec.reduction`.
    """

    def __init__(self, backend_args: dict | None = None, *, skip_broken: bool = True) -> None:
        self.backend_args = backend_args
        self.skip_broken = skip_broken
        self._spec: PyramidSpec | None = None

    def set_pyramid(self, spec: PyramidSpec) -> None:
        """Takes over what regions are cut.

        Args:
            spec: The model's pyramid.
        """
        self._spec = spec

    def _decode(self, data: bytes) -> np.ndarray | None:
        size = jpeg_size(data) if self._spec is not None else None
        reduction = self._spec.reduction(size) if self._spec is not None and size else 1
        return decode_rgb(data, reduction=reduction)

    def _read(self, path: str) -> bytes:
        if self.backend_args is None and "://" not in path:
            with open(
                path, "rb"
            ) as file:  # what mmengine does with it, after looking for a backend each time
                return file.read()
        return fileio.get(path, backend_args=self.backend_args)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Loads one image.

        Args:
            results: With ``img_path``.

        Returns:
            ``results`` with the image, or None if the file is no readable image: the data set then takes another one.

        Raises:
            ValueError: If the file is no readable image and ``skip_broken`` is False.
        """
        path = results["img_path"]
        try:
            data = results["img_bytes"] if "img_bytes" in results else self._read(path)
            image = self._decode(data)
            problem = "not an image that can be decoded"
        except OSError as error:
            image, problem = None, str(error)
        if image is None and not self.skip_broken:
            raise ValueError(
                f"{path}: {problem}. It has a label and can't be left out: mend it, or take it out of the labelled set"
            )
        if image is None:
            print_log(
                f"Left out {path}: {problem}. Another image takes its place; remove or mend it.",
                "current",
                30,
            )
            return None
        shape = image.shape[:2]
        rest = {key: value for key, value in results.items() if key != "img_bytes"}
        return {**rest, "img": image, "ori_shape": shape, "img_shape": shape}
