"""Near-duplicates between two sets of images: resized, recompressed, recoloured or mirrored copies."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from sspyr_mm.datasets.transforms import LoadRGBImage
from sspyr_mm.machine import num_cores

_SIDE = 64  # of the grey image, in pixels
_NUM_LOW = 16  # frequencies per axis
MAX_DISTANCE = 48
"""Largest number of different bits, of 256, of two near-duplicates.

Of 37 million pairs of Imagenette's training and test images the nearest differ in 54; unrelated ones in about 128.
Copies in JPEG of quality 20, half as large, grey, mirrored, squeezed by a fifth, or with another brightness or contrast
differ in at most 32 of 300 cases each; those cropped by 2 % at each edge in 34 (median), by 5 % in 80.
"""
MIN_CORRELATION = 0.975
"""Smallest correlation of the grey images of two near-duplicates: images of one composition have similar hashes.

The copies above have more, except a few brighter ones; of 797 of scikit-learn's digits, 11 have a more similar one
among the other 1,000.
"""
_CHUNK = 4096


def grey_image(path: str) -> NDArray[np.float32]:
    """Loads an image in grey, (64, 64); zeros if it is broken."""
    image = LoadRGBImage().peek(path)
    if image is None:
        return np.zeros((_SIDE, _SIDE), np.float32)
    return np.asarray(Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)


def image_hashes(paths: Sequence[str]) -> NDArray[np.float32]:
    """Computes a hash of 256 signs for each image and its mirror image, (N, 2, 256) of -1 and 1; broken images have 0.

    A sign says whether a low frequency of the grey image is above the median of all.
    """

    def compute(path: str) -> NDArray[np.float32]:
        grey = grey_image(path)
        low = np.stack([dctn(one, norm="ortho")[:_NUM_LOW, :_NUM_LOW] for one in (grey, grey[:, ::-1])])
        low = low.reshape(2, -1)
        signs = np.where(low > np.median(low, axis=1, keepdims=True), 1, -1)
        return signs.astype(np.float32) * (grey.std() > 1)  # all constant images would be alike

    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        return np.stack(list(pool.map(compute, paths)))


def find_near_duplicates(train: Sequence[str], test: Sequence[str]) -> list[tuple[int, int, int]]:
    """Finds test images that are near-duplicates of training images.

    Returns:
        Index of a test image, index of the most similar training image, and number of different bits, by test index.
    """
    known, wanted = image_hashes(train)[:, 0], image_hashes(test)
    best = np.full(len(test), MAX_DISTANCE + 1)
    partner = np.zeros(len(test), int)
    for start in range(0, len(train), _CHUNK):
        part = known[start : start + _CHUNK]
        for view in (0, 1):
            for first in range(0, len(test), _CHUNK):
                rows = slice(first, first + _CHUNK)
                # Of two signs, the product is -1 where they differ.
                distance = (part.shape[1] - wanted[rows, view] @ part.T) / 2
                column = distance.argmin(1)
                lowest = distance[np.arange(len(column)), column].astype(int)
                nearer = lowest < best[rows]
                best[rows][nearer] = lowest[nearer]
                partner[rows][nearer] = start + column[nearer]
    found = [(int(i), int(partner[i]), int(best[i])) for i in np.flatnonzero(best <= MAX_DISTANCE)]
    return [row for row in found if _correlation(grey_image(test[row[0]]), grey_image(train[row[1]])) > MIN_CORRELATION]


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Returns the correlation of two images of 32 x 32 pixels, or of one and the other's mirror image, if higher."""
    half = _SIDE // 2
    small = [x.reshape(half, 2, half, 2).mean(axis=(1, 3)).ravel() for x in (first, second, second[:, ::-1])]
    return max(np.corrcoef(small)[0, 1:])
