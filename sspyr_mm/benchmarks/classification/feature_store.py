"""Features on disk, in shards of a few hundred images.

A shard appears only when it is whole: a run that is killed continues with the first missing one, and runs side by side
at worst do the same work twice. It is an ``npy`` file followed by the SHA-256 of its bytes: in one file, as two of
parallel runs could be mixed.
"""

import hashlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspyr_mm.files import whole_file

__all__ = ["SHARD", "FeatureStore", "file_states"]

SHARD = 512
"""Images a file holds."""
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class FeatureStore:
    """Features of a list of images.

    Args:
        folder: Folder of the shards.
        num_images: N.
    """

    folder: Path
    num_images: int

    @property
    def num_shards(self) -> int:
        """Files, all but the last one full."""
        return -(-self.num_images // SHARD)

    def file(self, shard: int) -> Path:
        """Path of a shard."""
        return self.folder / f"{shard:06}.npy"

    def rows(self, shard: int) -> range:
        """Images of a shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.num_images))

    def batches(self, shard: int, size: int) -> Iterator[list[int]]:
        """Images of a shard, ``size`` at a time."""
        rows = self.rows(shard)
        for start in range(0, len(rows), size):
            yield list(rows[start : start + size])

    def describe(self, text: str) -> None:
        """Writes what the features are of, for people."""
        _write(self.folder / "about.json", text.encode())

    def save(self, shard: int, features: NDArray) -> None:
        """Writes a shard, (rows, C) float32."""
        _save(self.file(shard), features)

    def read(self, shard: int) -> NDArray | None:
        """A shard (rows, C) float32; None if it is missing or damaged, and to be extracted again."""
        path = self.file(shard)
        try:
            return _checked(path.read_bytes(), len(self.rows(shard)))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever is in the file, or wrong with it
            print(f"{path} is damaged ({error}): extracted again", file=sys.stderr)
            return None


def file_states(paths: Sequence[str]) -> bytes:
    """Hash of path, size and time of change of files; another one if any of them changes.

    Args:
        paths: Files.

    Raises:
        FileNotFoundError: If one is missing.
    """
    states = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        line = f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}\n"
        states.update(os.fsencode(line))
    return states.digest()


def _save(target: Path, array: NDArray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    _write(target, content + hashlib.sha256(content).digest())


def _write(target: Path, data: bytes) -> None:
    with whole_file(target) as partial:
        partial.write_bytes(data)


def _checked(data: bytes, num_rows: int) -> NDArray:
    content = memoryview(data)[:-_DIGEST]
    if hashlib.sha256(content).digest() != data[-_DIGEST:]:
        raise ValueError("its bytes are not those that were written")
    features = np.load(io.BytesIO(content))
    if features.ndim != 2 or len(features) != num_rows or features.dtype != np.float32:
        raise ValueError(f"{features.dtype} of shape {features.shape}, not float32 of {num_rows} rows")
    return features
