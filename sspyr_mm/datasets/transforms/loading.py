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

# OpenCV 4.11 and later spare a pass over the pixels.
_DECODES_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
_CV2_MODE = cv2.IMREAD_COLOR_RGB if _DECODES_RGB else cv2.IMREAD_COLOR


def decode_rgb(data: bytes) -> np.ndarray | None:
    """Decodes an image file to RGB.

    Greyscale, palette, CMYK, alpha and 16-bit images are converted to 8-bit RGB, and EXIF orientation is applied.

    Args:
        data: The file's bytes.

    Returns:
        (H, W, 3) uint8, or None if neither OpenCV nor Pillow can read it.
    """
    if not data:
        return None
    # OpenCV is about a quarter faster than Pillow; Pillow knows some formats it does not (GIF, some TIFF and PNG).
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _CV2_MODE)
    except cv2.error:  # of a header that promises too many pixels, say
        image = None
    if image is not None:
        return image if _DECODES_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except Exception:  # Pillow's readers raise whatever a broken file makes them trip over
        return None


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Reads and decodes an image; a broken one is reported and left out, not fatal.

    Required keys: ``img_path``. Modified keys: none. Added keys: ``img`` (H, W, 3) uint8 RGB, ``ori_shape``,
    ``img_shape``.

    Args:
        backend_args: Of mmengine's file client, for images that are not on a local disk.
        skip_broken: Whether another image takes the place of a broken one. Without labels none is needed more than
            another; what has a label is.
    """

    def __init__(self, backend_args: dict | None = None, *, skip_broken: bool = True) -> None:
        self.backend_args = backend_args
        self.skip_broken = skip_broken

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
            image = decode_rgb(self._read(path))
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
        return {**results, "img": image, "ori_shape": shape, "img_shape": shape}
