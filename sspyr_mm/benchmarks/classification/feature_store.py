"""Features on disk, in shards of a few hundred images.

A shard appears when it is complete: a killed run resumes at its first missing shard, and concurrent runs at worst
repeat work. It is an ``npy`` file followed by the SHA-256 of its bytes, in one file: concurrent runs could mix two.
"""

import hashlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspyr_mm.files import whole_file

__all__ = ["SHARD", "Shard", "file_states", "list_shards"]

SHARD = 512
"""Images per file."""
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Shard:
    """Features of consecutive images, (rows, C) float32, in one file."""

    file: Path
    rows: range

    def save(self, features: NDArray) -> None:
        """Writes the features."""
        buffer = io.BytesIO()
        np.save(buffer, features)
        content = buffer.getvalue()
        with whole_file(self.file) as partial:
            partial.write_bytes(content + hashlib.sha256(content).digest())

    def read(self) -> NDArray | None:
        """Returns the features; None if the file is missing or damaged."""
        try:
            data = self.file.read_bytes()
            content = data[:-_DIGEST]
            if hashlib.sha256(content).digest() != data[-_DIGEST:]:
                raise ValueError("its checksum differs")
            features = np.load(io.BytesIO(content))
            if features.ndim != 2 or len(features) != len(self.rows) or features.dtype != np.float32:
                raise ValueError(f"{features.dtype} of shape {features.shape}, not float32 of {len(self.rows)} rows")
            return features
        except FileNotFoundError:
            return None
        except Exception as error:  # np.load raises arbitrary exceptions on damaged files
            print(f"{self.file} is damaged ({error}): extracted again", file=sys.stderr)
            return None


def list_shards(folder: Path, num_images: int) -> list[Shard]:
    """Returns the shards that hold the features of a number of images."""
    starts = range(0, num_images, SHARD)
    return [
        Shard(folder / f"{number:06}.npy", range(start, min(start + SHARD, num_images)))
        for number, start in enumerate(starts)
    ]


def file_states(paths: Sequence[str]) -> bytes:
    """Returns a hash of path, size and modification time of files; raises FileNotFoundError if one is missing."""
    states = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        line = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        states.update(os.fsencode(line))
    return states.digest()
