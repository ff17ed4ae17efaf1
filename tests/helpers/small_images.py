"""Pictures made on the spot."""

import cv2
import numpy as np

from sspyr_mm.datasets import UnlabelledImages
from sspyr_mm.datasets.streaming.shards import pack


def noise_of_all_sizes(height, width):
    """(H, W, 3) uint8: as in photographs, the finer the weaker."""
    rng, image = np.random.default_rng(0), np.full((height, width, 3), 128.0, np.float32)
    for octave in range(2, 11):
        coarse = rng.normal(0, 60 * 2 ** (-0.6 * octave), (2**octave, 2**octave, 3))
        image += cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return image.clip(0, 255).astype(np.uint8)


def pack_images(folder, count):
    """Writes small images to a folder and packs them into shards of a few images each; returns the shards' folder."""
    rng = np.random.default_rng(0)
    for index in range(count):
        cv2.imwrite(f"{folder}/{index:02}.png", rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    out = folder / "shards"
    assert not pack(UnlabelledImages(str(folder)).list_images(), str(out), shard_bytes=1500, num_workers=1)
    return out
