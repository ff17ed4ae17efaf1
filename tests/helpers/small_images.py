"""Pictures made on the spot."""

import cv2
import numpy as np


def noise_of_all_sizes(height, width):
    """(H, W, 3) uint8: as in photographs, the finer the weaker."""
    rng, image = np.random.default_rng(0), np.full((height, width, 3), 128.0, np.float32)
    for octave in range(2, 11):
        coarse = rng.normal(0, 60 * 2 ** (-0.6 * octave), (2**octave, 2**octave, 3))
        image += cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)
