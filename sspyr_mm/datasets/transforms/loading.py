"""Loading of images, with reports of files that cannot be read."""

import logging
import os
import stat
import zlib
from typing import Any

import mmengine.fileio as fileio
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS

from sspyr_mm.datasets.transforms.decoding import UnreadableImageError, decode_rgb, describe_problem, jpeg_size
from sspyr_mm.datasets.transforms.pixel_values import BACKGROUND, MAX_PIXELS, DecodeOptions, flatness
from sspyr_mm.files import printable
from sspyr_mm.views import ViewsSpec


def read_file(path: str) -> bytes:
    """Reads a regular local file; raises OSError for a pipe, socket or device, which may never end."""
    # O_NONBLOCK: opening a pipe would wait for its other end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("a pipe, socket or device, not a regular file")
        return file.read()


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Reads and decodes an image; reports and skips a broken file.

    Required keys: ``img_path``. Optional keys: ``img_bytes``, the content of the file if the data set has already read
    it; it is removed. Modified keys: none. Added keys: ``img`` (H, W, 3) uint8 RGB, ``ori_shape``, ``img_shape``.

    Large JPEGs are decoded at a half, a quarter or an eighth of their size if views are set (by
    :class:`PyramidLinkHook`) and their regions do not need a higher resolution: see :meth:`ViewsSpec.reduction`.

    A broken file is reported once across workers and epochs, a disk error each time, and of images that are constant or
    nearly black the first one.

    Args:
        backend_args: Arguments of mmengine's file client, for images that are not on a local disk.
        skip_broken: Whether a broken image is replaced by another one; False for labelled images.
        value_range: Values that become black and white in images with more than 8 bits per channel, such as
            ``(0, 4095)``; default: from the bit-depth tag or values of each file, see :func:`to_8_bits`.
        background: RGB colour, 0 to 255, that transparent areas are composited on; default: ImageNet's mean, which is
            about zero after normalisation.
        max_pixels: Number of pixels above which an image counts as broken: the header of a small file can claim
            billions.

    Raises:
        ValueError: If ``value_range`` or ``max_pixels`` is empty, or one of the options has a wrong type.
    """

    def __init__(
        self,
        backend_args: dict | None = None,
        *,
        skip_broken: bool = True,
        value_range: tuple[float, float] | None = None,
        background: tuple[int, int, int] = BACKGROUND,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.backend_args = backend_args
        self.skip_broken = skip_broken
        self.options = DecodeOptions(value_range, background, max_pixels)
        self._views: ViewsSpec | None = None
        # In shared memory, so that a file is reported once across workers and epochs.
        self._reported = torch.zeros(1 << 16, dtype=torch.uint8).share_memory_()

    def set_views(self, views: ViewsSpec) -> None:
        """Sets the views of the model, whose regions limit the reduction of JPEGs."""
        self._views = views

    def _decode(self, data: bytes) -> np.ndarray | None:
        size = jpeg_size(data) if self._views is not None else None
        reduction = self._views.reduction(size) if self._views is not None and size else 1
        return decode_rgb(data, reduction=reduction, options=self.options)

    def _read(self, path: str) -> bytes:
        if self.backend_args is None and "://" not in path:
            return read_file(path)  # mmengine would look for a backend each time
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
        path = once = printable(results["img_path"])
        try:
            data = results["img_bytes"] if "img_bytes" in results else self._read(results["img_path"])
            image = self._decode(data)
            problem = describe_problem(data, self.options) if image is None else ""
        except OSError as error:
            image, problem, once = None, error.strerror or str(error), ""
        if image is None:
            if not self.skip_broken:
                raise UnreadableImageError(
                    f"{path}: {problem}. It has a label and cannot be skipped: repair it, or remove it from the set"
                )
            message = f"Skipped {path}: {problem}. Another image is used instead; repair or remove the file."
            self._warn(message, once=once)
            return None
        if kind := flatness(image):
            self._warn(f"{path} is {kind}; further images of this kind are not reported.", once="flat")
        shape = image.shape[:2]
        rest = {key: value for key, value in results.items() if key != "img_bytes"}
        return {**rest, "img": image, "ori_shape": shape, "img_shape": shape}

    def _warn(self, message: str, *, once: str) -> None:
        """Logs a warning, unless there was one with the same key ``once``; an empty key is always new."""
        if once:
            slot = zlib.crc32(once.encode("utf-8", "surrogatepass")) % len(self._reported)
            if self._reported[slot]:
                return
            self._reported[slot] = 1
        print_log(message, "current", logging.WARNING)
