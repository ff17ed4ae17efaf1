"""Writing of pictures."""

import os
from pathlib import Path

import cv2
import numpy as np

from sspyr_mm.files import whole_file


def write_picture(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes a picture; the file appears when it is whole.

    Args:
        path: File; its ending tells the format, ``.png`` or ``.jpg`` for example. Folders are made.
        picture: (height, width, 3) uint8 RGB.

    Raises:
        ValueError: If the format is unknown.
    """
    try:
        _, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"{path}: pictures can't be written in this format; end the name with .png or .jpg") from error
    with whole_file(path) as partial:
        partial.write_bytes(encoded.tobytes())
