"""Broken images that the workers of a process meet, for its log and for the run's list of them."""

import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch


class Broken(NamedTuple):
    """A broken image or shard."""

    name: str
    """Path, printable."""
    reason: str
    num_images: int = 1
    """Those of the shard, else 1."""


class BrokenRecord:
    """Collects broken images from all workers of a process.

    State, not saved: what has been logged, in shared memory, so that workers and epochs log an image once; the path
    of the file that workers append to and the main process reads.
    """

    def __init__(self) -> None:
        self._logged = torch.zeros(1 << 16, dtype=torch.uint8).share_memory_()
        self._file: Path | None = None
        self._added: set[str] = set()

    def append_to(self, file: Path) -> None:
        """Sets the file to append to; called before workers are started."""
        self._file = file

    def is_new(self, key: str) -> bool:
        """Returns whether no worker has asked for this key before; two of 65,536 keys may count as one."""
        slot = zlib.crc32(key.encode("utf-8", "surrogatepass")) % len(self._logged)
        new = not self._logged[slot]
        self._logged[slot] = 1
        return bool(new)

    def add(self, broken: Broken) -> bool:
        """Adds a broken image, unless this worker has; returns whether to log it."""
        if self._file is not None and broken.name not in self._added:
            self._added.add(broken.name)
            with suppress(OSError):  # a full disk; the log still names the image
                descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                try:
                    os.write(descriptor, (json.dumps(broken) + "\n").encode())  # appended lines do not interleave
                finally:
                    os.close(descriptor)
        return self.is_new(broken.name)


def read_appended(file: Path, start: int) -> tuple[list[Broken], int]:
    """Returns the broken images after byte ``start`` of the workers' file, and the byte to read from next time."""
    try:
        with open(file, "rb") as opened:
            opened.seek(start)
            lines = opened.read().split(b"\n")[:-1]  # the last one may be incomplete
    except FileNotFoundError:
        return [], start
    return [Broken(*json.loads(line)) for line in lines], start + sum(len(line) + 1 for line in lines)
