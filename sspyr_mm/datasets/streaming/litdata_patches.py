"""Import of litdata 0.2.76, and patches of it, each limited to a ``with`` block."""

import functools
import multiprocessing
import os
import signal
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest import mock


def import_litdata() -> Any:
    """Returns the library that reads and writes shards; if it is missing, ImportError says how to install it."""
    try:
        import litdata
    except ImportError as error:
        raise ImportError(
            "Streaming needs litdata: pip install 'sspyr_mm[streaming]', or in a checkout "
            "pip install -r requirements/streaming.txt"
        ) from error
    return litdata


_http_users = 0


@contextmanager
def http_allowed(storage_options: Mapping[str, Any]) -> Iterator[None]:
    """Allows unencrypted transfers inside the block if the store's ``endpoint_url`` is ``http://``.

    litdata 0.2.76 has no option for this: its clients are created at the first transfer and read a module-level dict.
    """
    global _http_users
    if not str(storage_options.get("endpoint_url", "")).startswith("http://"):
        yield
        return
    from litdata.streaming import downloader

    _http_users += 1
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    try:
        yield
    finally:
        _http_users -= 1
        if not _http_users:
            del downloader._OBSTORE_CLIENT_OPTIONS["allow_http"]


@contextmanager
def litdata_settings(folder: str) -> Iterator[None]:
    """Redirects litdata's temporary files to a folder: concurrent packings would share its default one.

    Restores the start method and the signal handlers, which litdata changes permanently.
    """
    names = {"DATA_OPTIMIZER_CACHE_FOLDER": "chunks", "DATA_OPTIMIZER_DATA_CACHE_FOLDER": "data"}
    folders = {name: os.path.join(folder, part) for name, part in names.items()}
    method = multiprocessing.get_start_method(allow_none=True)
    try:
        with mock.patch.dict(os.environ, folders), _interruptible():
            yield
    finally:
        multiprocessing.set_start_method(method, force=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt on Ctrl-C and SIGTERM, and terminates all processes of litdata.

    litdata's own handler exits this process with status 0 and leaves an incomplete data set.
    """
    from litdata.processing.data_processor import DataProcessor

    owner, others = os.getpid(), set(multiprocessing.active_children())
    interrupted = False

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if os.getpid() != owner:  # a child process that inherited the handler
            os._exit(128 + signum)
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, interrupt) for number in signals}
    try:
        with mock.patch.object(DataProcessor, "_signal_handler", lambda _, *args: interrupt(*args)):
            yield
    finally:
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
            child.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if interrupted:  # again: Python ignores an exception that is raised while a process forks
            raise KeyboardInterrupt


CHECKSUM = "crc32"
"""Key of a shard's checksum in the index."""


def add_checksums() -> None:
    """Adds the CRC-32 of each shard to its entry in the index; called in a process that packs, for its lifetime.

    litdata 0.2.76 writes no checksums. zlib's CRC-32 is in the standard library, reads 1.4 GB/s, and misses one of
    four billion random changes; it is no protection against changes on purpose.
    """
    from litdata.streaming.writer import BinaryWriter

    create = BinaryWriter._create_chunk
    if hasattr(create, "__wrapped__"):
        return

    @functools.wraps(create)
    def with_checksum(self: Any, on_done: bool = False) -> tuple[bytes, bool, dict[str, Any]]:
        data, nested, info = create(self, on_done)
        return data, nested, {**info, CHECKSUM: zlib.crc32(data)}

    BinaryWriter._create_chunk = with_checksum


def worker_place(world_size: int, rank: int) -> Any:
    """Returns the environment of worker ``rank`` of ``world_size``, which overrides that of a stream's loader."""
    from litdata.utilities.env import _WorkerEnv

    return _WorkerEnv(world_size=world_size, rank=rank)
