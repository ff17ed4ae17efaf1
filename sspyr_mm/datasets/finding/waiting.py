"""Waiting for a folder or a store that goes away for seconds: a file server that restarts, a disk that is unplugged."""

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from mmengine.logging import print_log

from sspyr_mm.files import printable

T = TypeVar("T")


class Patience:
    """Repeats a read while the place of the file is away: after 1, 2, 4, ... seconds.

    A place that stays away is not waited for again before it has been read from, and other places not before any read
    has succeeded.

    State: whether the outage has been logged, shared by the workers of a process; the rest per process. Not saved.

    Args:
        seconds: Total time to wait, >= 0; 0: do not wait.

    Raises:
        ValueError: If ``seconds`` is negative.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        if not seconds >= 0:
            raise ValueError(f"wait_s must be >= 0 seconds, got {seconds}; the default is 60")
        self.seconds = seconds
        self._away = torch.zeros(1, dtype=torch.uint8).share_memory_()
        self._given_up: set[str] = set()
        self._exhausted = False

    def read(
        self,
        read: Callable[[], T],
        place: str,
        *,
        errors: type[Exception] = OSError,
        is_away: Callable[[Exception], bool] | None = None,
    ) -> T:
        """Returns the result of ``read``, which is repeated while it fails with ``errors`` and the place is away.

        ``is_away`` returns whether an error is one of the place and not of the file; default: the folder ``place``
        cannot be listed. The last error is raised.
        """
        is_away = is_away or (lambda _: is_folder_away(place))
        start, delay = time.monotonic(), 1.0
        while True:
            try:
                result = read()
            except errors as error:
                if self._exhausted or place in self._given_up or not is_away(error):
                    raise
                left = start + self.seconds - time.monotonic()
                if left <= 0:
                    self._exhausted = True
                    self._given_up.add(place)
                    raise
                self._log_once(place, error)
                time.sleep(min(delay, left))
                delay *= 2
                continue
            self._exhausted = False
            self._given_up.discard(place)
            if self._away[0]:
                self._away[0] = 0
                print_log(f"{printable(place)} can be read again.", "current", logging.WARNING)
            return result

    def _log_once(self, place: str, error: Exception) -> None:
        if not self._away[0]:
            self._away[0] = 1
            print_log(
                f"{printable(place)} cannot be read ({getattr(error, 'strerror', None) or error}); waiting up to "
                f"{self.seconds:g} s for it.",
                "current",
                logging.WARNING,
            )


def is_folder_away(folder: str) -> bool:
    """Returns whether a folder that has held files does not exist, or cannot be read for another reason than rights."""
    try:
        os.scandir(folder or ".").close()
    except PermissionError:
        return False
    except OSError:
        return True
    return False
