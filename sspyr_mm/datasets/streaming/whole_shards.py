"""Item loader of litdata 0.2.76 that reads from whole shards only: each is checked when it arrives."""

import asyncio
import errno
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from filelock import FileLock
from litdata.streaming import item_loader

from sspyr_mm.datasets.finding.waiting import Patience
from sspyr_mm.datasets.streaming.litdata_patches import CHECKSUM
from sspyr_mm.datasets.streaming.shards import INDEX

T = TypeVar("T")

_BLOCK = 1 << 20
_FETCH_S = 120
"""Time in which another process fetches a shard, in seconds."""
_PERMANENT = ("404", "NoSuchKey", "NotFound", "403", "AccessDenied")
"""Parts of the errors of object stores that waiting does not change."""


class Packed(NamedTuple):
    """An image of a shard."""

    position: int
    """Position among the images of all shards."""
    shard: int
    item: dict[str, Any] | None
    """``index``, ``name`` and ``image``, as packed; None if the shard is damaged."""


class PyTreeLoader(item_loader.PyTreeLoader):
    """Reads :class:`Packed` images; those of a missing, truncated or changed shard have no item.

    It has litdata's name, which the index requires. A damaged copy in a cache is fetched again once.

    State: per process; not saved.

    Args:
        root: Folder of the shards, or URL; folders may begin with ``local:``.
        patience: Waits while the folder or store is away.
    """

    def __init__(self, root: str, patience: Patience) -> None:
        super().__init__()
        self.damaged: dict[int, str] = {}
        """Problem of each damaged shard that this process has met."""
        self._root, self._patience = root.removeprefix("local:"), patience
        self._checked: dict[int, tuple[int, int, int]] = {}
        self._failed: dict[str, str] = {}
        self._source: Any = None
        self._folder = ""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_source": None}

    def name(self, shard: int) -> str:
        """Returns the file name of a shard."""
        return self._chunks[shard]["filename"]

    def count(self, shard: int) -> int:
        """Returns the number of images in a shard."""
        return self._chunks[shard]["chunk_size"]

    @property
    def has_checksums(self) -> bool:
        """Whether the index has the checksums of all shards."""
        return all(CHECKSUM in chunk for chunk in self._chunks)

    def patiently(self, read: Callable[[], T]) -> T:
        """Returns the result of a function that reads from the folder or store; waits while that is away."""
        # A store's errors are of any class.
        return self._patience.read(read, self._root, errors=Exception, is_away=self._is_away)

    def check_present(self) -> None:
        """Raises FileNotFoundError if the folder is away; litdata would create an empty one."""
        if self._is_folder and not os.path.isfile(os.path.join(self._root, INDEX)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._root)

    @property
    def _is_folder(self) -> bool:
        return "://" not in self._root

    def _is_away(self, error: Exception) -> bool:
        if self._is_folder:
            return not os.path.isfile(os.path.join(self._root, INDEX))  # also an empty folder: an unmounted disk
        text = f"{type(error).__name__} {error}"
        return not isinstance(error, FileNotFoundError) and not any(part in text for part in _PERMANENT)

    def fetch_with(self, config: Any) -> None:
        """Sets the litdata config of this process, whose downloads report errors here instead of ending its thread."""
        downloader, self._folder = config._downloader, config._cache_dir
        if downloader is None:  # the shards are read in place
            return
        self._source = config
        fetch, fetch_async = downloader.download_chunk_from_index, downloader.adownload_file
        shards = {chunk["filename"]: shard for shard, chunk in enumerate(self._chunks)}

        def download(shard: int) -> None:
            name = self.name(shard)
            local = os.path.join(config._cache_dir, name)
            try:
                self.patiently(lambda: _fetch_file(lambda: fetch(shard), local))
            except Exception as error:
                missing = self._is_folder and not self._is_away(error)
                self._failed[name] = "is missing" if missing else f"cannot be fetched ({_first_line(error)})"
                return
            self._failed.pop(name, None)
            with suppress(FileNotFoundError):  # another process is fetching it
                if problem := _size_problem(os.stat(local), self._chunks[shard]["chunk_bytes"]):
                    self._failed[name] = problem

        async def download_async(remote_file: str, local: str) -> None:
            with suppress(Exception):
                await fetch_async(remote_file, local)
            await asyncio.to_thread(download, shards[os.path.basename(remote_file)])  # at once if the file is there

        downloader.download_chunk_from_index, downloader.adownload_file = download, download_async

    def load_item_from_chunk(
        self,
        index: int,
        chunk_index: int,
        chunk_filepath: str,
        begin: int,
        filesize_bytes: int,
        encryption: Any = None,
    ) -> Any:
        """Returns the image at a position, :class:`Packed`; called by litdata."""
        position, shard = int(index), int(chunk_index)
        arrives = shard not in self.damaged and chunk_filepath != self._chunk_filepath
        if arrives and (problem := self._problem(shard, chunk_filepath, filesize_bytes)):
            self.damaged[shard] = problem
        if shard in self.damaged:
            return Packed(position, shard, None)
        try:
            item = super().load_item_from_chunk(position, shard, chunk_filepath, begin, filesize_bytes, encryption)
        except (LookupError, OSError, RuntimeError, ValueError, struct.error) as error:
            if CHECKSUM in self._chunks[shard]:
                raise
            self.damaged[shard] = f"cannot be parsed ({_first_line(error)})"
            item = None
        return Packed(position, shard, item)

    def alternatives(self, packed: Packed) -> Iterator[Packed]:
        """Yields the images that may replace one: the next ones of its shard, then those of the next shards.

        They depend on the position alone, so that they are the same after a restart. A damaged shard has one item.
        """
        begins = [interval[0] for interval in self.generate_intervals()]
        offset = packed.position - begins[packed.shard]
        for step in range(len(begins)):
            shard = (packed.shard + step) % len(begins)
            begin, count = begins[shard], self.count(shard)
            for number in range(step == 0, count):
                one = self._load_other(begin + (offset + number) % count, shard, begin)
                yield one
                if one.item is None:
                    break

    def _load_other(self, position: int, shard: int, begin: int) -> Packed:
        path = os.path.join(self._folder, self.name(shard))
        if self._source is not None and shard not in self.damaged and not os.path.exists(path):
            self._source.download_chunk_from_index(shard, skip_lock=True)  # nobody has asked for it in this process
        return self.load_item_from_chunk(position, shard, path, begin, self._chunks[shard]["chunk_bytes"])

    def _raise_if_prefetch_crashed(self, chunk_filepath: str) -> None:
        """Ends litdata's wait for a shard that cannot be fetched."""
        if problem := self._failed.get(os.path.basename(chunk_filepath)):
            raise FileNotFoundError(problem)
        super()._raise_if_prefetch_crashed(chunk_filepath)

    def warm_posix_chunk(self, chunk_index: int, chunk_filepath: str) -> None:
        """Reads ahead; litdata would also parse the shard, which has not been checked yet."""
        self.pre_load_chunk(chunk_index, chunk_filepath)

    def _problem(self, shard: int, path: str, num_bytes: int) -> str | None:
        """Describes why a shard cannot be read, in words that follow its name; None if it is whole."""
        try:
            if self._source is None:
                return self.patiently(lambda: self._file_problem(shard, path, num_bytes))
            with suppress(FileNotFoundError):
                if self._file_problem(shard, path, num_bytes):
                    self._fetch_again(shard, path, num_bytes)
            if not os.path.exists(path):
                self._wait_until_chunk_ready(shard, path, num_bytes)
            return self._file_problem(shard, path, num_bytes)
        except FileNotFoundError as error:
            return self._failed.get(self.name(shard)) or ("is missing" if error.errno else str(error))
        except OSError as error:
            return error.strerror or str(error)

    def _fetch_again(self, shard: int, path: str, num_bytes: int) -> None:
        with FileLock(f"{path}.check.lock"):  # other workers may have the same copy
            if os.path.exists(path) and self._file_problem(shard, path, num_bytes):
                os.remove(path)
                self._source.download_chunk_from_index(shard, skip_lock=True)

    def _file_problem(self, shard: int, path: str, num_bytes: int) -> str | None:
        found = os.stat(path)
        if problem := _size_problem(found, num_bytes):
            return problem
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        expected = self._chunks[shard].get(CHECKSUM)
        if expected is None or self._checked.get(shard) == state:
            return None
        if _crc32(path) != expected:
            return "has changed since it was packed (its checksum differs)"
        self._checked[shard] = state
        return None


def _fetch_file(fetch: Callable[[], None], local: str) -> None:
    """Fetches a file. Raises FileNotFoundError for a missing one; litdata ignores that error of S3 and R2."""
    fetch()
    if not os.path.exists(local):
        with FileLock(f"{local}.lock", timeout=_FETCH_S):  # another process may be fetching it: litdata does not wait
            pass
        if not os.path.exists(local):
            raise FileNotFoundError("there is no such file")


def _size_problem(found: os.stat_result, num_bytes: int) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if found.st_size == num_bytes:
        return None
    return f"has {found.st_size} bytes in place of {num_bytes}" if found.st_size else "is empty"


def _crc32(path: str) -> int:
    value = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
