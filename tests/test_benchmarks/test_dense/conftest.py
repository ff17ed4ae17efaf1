"""Small images with an EXIF orientation, in several formats."""

import numpy as np
import pytest
from PIL import ExifTags, Image

WIDTH, HEIGHT = 24, 16
SHAPE = (HEIGHT, WIDTH)


@pytest.fixture(scope="session")
def write_image():
    def write(path, orientation=None, shape=SHAPE):
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if orientation:
            exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(path, exif=exif)

    return write
