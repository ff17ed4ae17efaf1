"""Loading of images, with reports of files that cannot be read."""

import logging
import os
from typing import Any

import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS

from sspyr_mm.datasets.broken import Broken, BrokenRecord
from sspyr_mm.datasets.finding.waiting import Patience
from sspyr_mm.datasets.transforms.decoding import UnreadableImageError, decode_rgb, describe_problem, jpeg_size
from sspyr_mm.datasets.transforms.pixel_values import BACKGROUND, MAX_PIXELS, DecodeOptions, flatness
from sspyr_mm.files import printable, read_regular
from sspyr_mm.views import ViewsSpec

MAX_BYTES = 1_000_000_000
"""Limit of bytes per file: more than 180 million pixels of 8-bit RGB without compression."""


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Reads and decodes an image; reports and skips a broken file.

    Required keys: ``img_path``. Optional keys: ``img_bytes``, the content of the file if the data set has already read
    it; it is removed. Modified keys: none. Added keys: ``img`` (H, W, 3) uint8 RGB, ``ori_shape``, ``img_shape``.

    Large JPEGs are decoded at a half, a quarter or an eighth of their size if views are set (by
    :class:`PyramidLinkHook`) and their regions do not need a higher resolution: see :meth:`ViewsSpec.reduction`.

    A broken file is reported once across workers and epochs, and listed by :class:`BrokenImagesHook`; of images that
    are constant or nearly black the first one is reported. A missing file is broken; if its folder is away, too, as
    when a file server restarts, the folder is waited for.

    Args:
        backend_args: Arguments of mmengine's file client, for images that are not on a local disk.
        skip_broken: Whether a broken image is replaced by another one; False for labelled images.
        value_range: Values that become black and white in images with more than 8 bits per channel, such as
            ``(0, 4095)``; default: from the bit-depth tag or values of each file, see :func:`to_8_bits`.
        background: RGB colour, 0 to 255, that transparent areas are composited on; default: ImageNet's mean, which is
            about zero after normalisation.
        max_pixels: Number of pixels above which an image counts as broken: the header of a small file can claim
            billions.
        max_bytes: Size above which a file is not opened, in bytes; not applied to other backends.
        wait_s: Time to wait for a folder that is away, in seconds, >= 0.

    Raises:
        ValueError: If ``value_range`` or ``max_pixels`` is empty, ``wait_s`` is negative, or an option has a wrong
            type.
    """

    def __init__(
        self,
        backend_args: dict | None = None,
        *,
        skip_broken: bool = True,
        value_range: tuple[float, float] | None = None,
        background: tuple[int, int, int] = BACKGROUND,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
        wait_s: float = 60.0,
    ) -> None:
        self.backend_args = backend_args
        self.skip_broken = skip_broken
        self.options = DecodeOptions(value_range, background, max_pixels)
        self.max_bytes = max_bytes
        self.broken = BrokenRecord()
        self._patience = Patience(wait_s)
        self._views: ViewsSpec | None = None

    def set_views(self, views: ViewsSpec) -> None:
        """Sets the views of the model, whose regions limit the reduction of JPEGs."""
        self._views = views

    def _decode(self, data: bytes) -> np.ndarray | None:
        size = jpeg_size(data) if self._views is not None else None
        reduction = self._views.reduction(size) if self._views is not None and size else 1
        return decode_rgb(data, reduction=reduction, options=self.options)

    def _read(self, path: str) -> bytes:
        if self.backend_args is None and "://" not in path:
            # mmengine would look for a backend each time
            return self._patience.read(lambda: read_regular(path, max_bytes=self.max_bytes), os.path.dirname(path))
        return fileio.get(path, backend_args=self.backend_args)

    def peek(self, path: str) -> np.ndarray | None:
        """Loads an image, (H, W, 3) uint8 RGB, without reports; None if it cannot be read."""
        try:
            return self._decode(self._read(path))
        except OSError:
            return None

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Returns ``results`` with the image, or None if it cannot be read: the data set then replaces it.

        Raises UnreadableImageError instead if ``skip_broken`` is False.
        """
        path = printable(results["img_path"])
        try:
            data = results["img_bytes"] if "img_bytes" in results else self._read(results["img_path"])
            image = self._decode(data)
            problem = describe_problem(data, self.options) if image is None else ""
        except OSError as error:
            image, problem = None, error.strerror or str(error)
        if image is None:
            if not self.skip_broken:
                raise UnreadableImageError(f"{path}: {problem}. It cannot be skipped here: repair it, or remove it")
            if self.broken.add(Broken(path, problem)):
                _warn(f"Skipped {path}: {problem}. Another image is used instead; repair or remove the file.")
            return None
        if (kind := flatness(image)) and self.broken.is_new("flat"):
            _warn(f"{path} is {kind}; further images of this kind are not reported.")
        shape = image.shape[:2]
        rest = {key: value for key, value in results.items() if key != "img_bytes"}
        return {**rest, "img": image, "ori_shape": shape, "img_shape": shape}


def _warn(message: str) -> None:
    print_log(message, "current", logging.WARNING)
