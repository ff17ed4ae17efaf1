"""Image files."""

import os
from pathlib import Path

import cv2
import numpy as np

from sspyr_mm.files import whole_file


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes an image atomically.

    Args:
        path: Output file; its ending sets the format, such as ``.png`` or ``.jpg``. Its folder is created.
        image: (height, width, 3) uint8 RGB.

    Raises:
        ValueError: If the format is unknown.
    """
    try:
        _, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"{path}: images can't be written in this format; end the name with .png or .jpg") from error
    with whole_file(path) as partial:
        partial.write_bytes(encoded.tobytes())
