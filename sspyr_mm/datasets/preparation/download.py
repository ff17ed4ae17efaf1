"""Downloads that go on where they broke off."""

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20


class DownloadError(OSError):
    """A file could not be had from its server."""


def download(
    url: str,
    path: Path,
    *,
    md5: str | None = None,
    attempts: int = 5,
    pause_s: float = 2.0,
    timeout_s: float = 30.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Downloads a file, or the rest of it.

    What has arrived is kept in ``<path>.partial``, from which the next call goes on; ``path`` appears when all bytes
    that the server has promised are there, and their checksum is right.

    Args:
        url: Address.
        path: The file.
        md5: Its checksum, where one is known.
        attempts: Breaks in a row, without a further byte in between, before it is given up.
        pause_s: Seconds between attempts.
        timeout_s: Seconds without a byte before an attempt is given up.
        progress: Told the bytes that are there and those of the whole file.

    Raises:
        DownloadError: If the server can't be reached, refuses the file or does not say how large it is.
        ValueError: If the checksum is wrong; what has arrived is then removed.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    failures, most = 0, _size(partial)
    while True:
        try:
            total = _fetch_rest(url, partial, timeout_s, progress)
            if _size(partial) == total:
                break
            problem = f"it broke off at {_size(partial)} of {total} bytes"
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code < 500:
                raise DownloadError(f"{url}: {problem}") from error
        except (
            urllib.error.URLError,
            TimeoutError,
            ConnectionError,
            http.client.HTTPException,
        ) as error:
            problem = str(error) or type(error).__name__
        # Only what was never reached before counts: a server without ranges starts anew each time.
        failures = 1 if _size(partial) > most else failures + 1
        most = max(most, _size(partial))
        if failures >= attempts:
            raise DownloadError(f"{url}: {problem}")
        time.sleep(pause_s)
    if md5 is not None and (found := file_md5(partial)) != md5:
        partial.unlink()
        raise ValueError(
            f"{url} is not the official file: its MD5 is {found}, {md5} is right. It was removed; a proxy or a mirror "
            "may have answered instead"
        )
    os.replace(partial, path)


def _fetch_rest(
    url: str, partial: Path, timeout_s: float, progress: Callable[[int, int], None]
) -> int:
    """Appends what the server sends; returns the size of the whole file."""
    have = _size(partial)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing after the bytes that are there: they are all, or those of another file.
        total = _number(r"bytes \*/(\d+)$", error.headers.get("Content-Range"))
        if total != have:
            partial.unlink()
        return have if total is None else total
    with response:
        if response.status == 206:
            content_range = response.headers.get("Content-Range")
            start = _number(r"bytes (\d+)-\d+/\d+$", content_range)
            total = _number(r"bytes \d+-\d+/(\d+)$", content_range)
        else:
            start, total = 0, _number(r"(\d+)$", response.headers.get("Content-Length"))
        if total is None or start not in (0, have):
            raise DownloadError(f"{url}: the server does not say which bytes it sends, of how many")
        with partial.open("ab" if start else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress(file.tell(), total)
    return total


def _number(pattern: str, header: str | None) -> int | None:
    match = re.match(pattern, header or "")
    return int(match[1]) if match else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def file_md5(path: Path) -> str:
    """MD5 of a file, in hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
