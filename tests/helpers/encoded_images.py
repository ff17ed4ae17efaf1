"""Small images and image files in memory."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

Image.init()  # loads the writers of less common formats


def smooth_image(height=48, width=64, seed=0):
    """Returns (H, W, 3) uint8 whose three channels differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def random_image(height=64, width=80, seed=0):
    """Returns (H, W, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image, fmt="JPEG", **options):
    """Encodes an array or a Pillow image with Pillow."""
    out = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(out, fmt, **options)
    return out.getvalue()


def encode_cv2(suffix, values):
    """Encodes BGR values with OpenCV, which also writes deeper images."""
    return cv2.imencode(suffix, values)[1].tobytes()


def png_file(width, height, *, bits, colour, rows):
    """Returns a PNG with the given numbers in its header, which need not fit its rows."""

    def chunk(name, content):
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
