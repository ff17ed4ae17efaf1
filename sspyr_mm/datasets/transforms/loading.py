"""Loading of whatever a folder of photographs holds."""

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

from sspyr_mm.datasets.transforms.decode_problems import UnreadableImageError, describe_problem
from sspyr_mm.datasets.transforms.decoding import (
    decode_rgb,
    jpeg_size,
)
from sspyr_mm.datasets.transforms.pixel_values import (
    BACKGROUND,
    MAX_PIXELS,
    DecodeOptions,
    flatness,
)
from sspyr_mm.files import printable
from sspyr_mm.pyramid import PyramidSpec


def read_file(path: str) -> bytes:
    """Reads a regular file.

    Args:
        path: File on a local disk.

    Returns:
        Its bytes.

    Raises:
        OSError: If it cannot be read, or is a pipe, socket or device, which may never end.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("a pipe, socket or device, not a regular file")
        return file.read()


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@TRANSFORMS.register_module()
class LoadRGBImage(BaseTransform):
    """Reads and decodes an image; a broken one is reported and left out, not fatal.

    Required keys: ``img_path``. Modified keys: none; ``img_bytes``, where a data set has read the file already, is
    removed. Added keys: ``img`` (H, W, 3) uint8 RGB, ``ori_shape``, ``img_shape``.

    Large JPEGs are decoded at a half, a quarter or an eighth of their size where a pyramid is known
    (:class:`PyramidLinkHook` sets it) and its regions have no use for more: see :meth:`PyramidSpec.reduction`.

    A file is reported once, also by several workers and epochs; errors of the disk are reported each time. The first
    image that is constant or nearly black is reported, too.

    Args:
        backend_args: Arguments of mmengine's file client, for images that are not on a local disk.
        skip_broken: Whether another image takes the place of a broken one. Images with labels are needed: False.
        value_range: Values of images with more than 8 bits a channel that become black and white, such as
            ``(0, 4095)``; default: by each file's bit-depth tag or values, see :func:`to_8_bits`.
        background: RGB colour that transparent areas are composited on; default: ImageNet's mean, which is about zero
            after normalisation.
        max_pixels: Pixels above which an image counts as broken, by its header; a small file can claim billions.

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
        self._spec: PyramidSpec | None = None
        # In shared memory: workers know what others and those of earlier epochs have reported.
        self._reported = torch.zeros(1 << 16, dtype=torch.uint8).share_memory_()

    def set_pyramid(self, spec: PyramidSpec) -> None:
        """Sets which regions are cut.

        Args:
            spec: The model's pyramid.
        """
        self._spec = spec

    def _decode(self, data: bytes) -> np.ndarray | None:
        size = jpeg_size(data) if self._spec is not None else None
        reduction = self._spec.reduction(size) if self._spec is not None and size else 1
        return decode_rgb(data, reduction=reduction, options=self.options)

    def _read(self, path: str) -> bytes:
        if self.backend_args is None and "://" not in path:
            return read_file(path)  # mmengine would look for a backend each time
        return fileio.get(path, backend_args=self.backend_args)

    def _warn_once(self, key: str, message: str) -> None:
        slot = zlib.crc32(key.encode("utf-8", "surrogatepass")) % len(self._reported)
        if not self._reported[slot]:
            self._reported[slot] = 1
            print_log(message, "current", logging.WARNING)

    def _load(self, results: dict[str, Any]) -> tuple[np.ndarray | None, str]:
        """The image, or None and the reason."""
        data = results["img_bytes"] if "img_bytes" in results else self._read(results["img_path"])
        image = self._decode(data)
        return image, describe_problem(data, self.options) if image is None else ""

    def peek(self, path: str) -> np.ndarray | None:
        """Loads one image without reports.

        Args:
            path: File or URL.

        Returns:
            (H, W, 3) uint8 RGB, None if it cannot be read.
        """
        try:
            return self._load({"img_path": path})[0]
        except OSError:
            return None

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Loads one image.

        Args:
            results: With ``img_path``.

        Returns:
            ``results`` with the image, or None if the file cannot be read as an image: the data set then takes another.

        Raises:
            UnreadableImageError: If the file cannot be read as an image and ``skip_broken`` is False.
        """
        path = printable(results["img_path"])
        try:
            image, problem = self._load(results)
        except OSError as error:
            self._report(path, error.strerror or str(error), once=False)
            return None
        if image is None:
            self._report(path, problem, once=True)
            return None
        if kind := flatness(image):
            self._warn_once(
                "flat",
                f"{path} is {kind}; further images of this kind are not reported.",
            )
        shape = image.shape[:2]
        rest = {key: value for key, value in results.items() if key != "img_bytes"}
        return {**rest, "img": image, "ori_shape": shape, "img_shape": shape}

    def _report(self, path: str, problem: str, *, once: bool) -> None:
        if not self.skip_broken:
            raise UnreadableImageError(
                f"{path}: {problem}. It has a label and cannot be left out: repair it, or remove it from the set"
            )
        message = f"Left out {path}: {problem}. Another image takes its place; repair or remove it."
        if once:
            self._warn_once(path, message)
        else:
            print_log(message, "current", logging.WARNING)
