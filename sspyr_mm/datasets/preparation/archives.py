"""Download (by torchvision), verification and extraction of the archives of a data set."""

import argparse
import http.client
import lzma
import os
import shutil
import socket
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

from torchvision.datasets.utils import calculate_md5, download_url

# Errors of damaged archives; a member that is encrypted is a RuntimeError, one without room on disk stays an OSError.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    lzma.LZMAError,
)

# Seconds without a byte after which a download fails.
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Split:
    """Expected content of a split."""

    num_images: int
    num_objects: int  # in VOC without the difficult ones
    md5: str  # of the archive with the images


@dataclass(frozen=True)
class Part:
    """One archive of a data set."""

    name: str
    url: str
    md5: str
    #: Function from the folder of the data set to findings: whether a part is complete, and its description.
    check: Callable[[Path], Iterable[tuple[bool, str]]]
    #: Function that creates files that ``check`` needs and the archive lacks, from the extracted files.
    build: Callable[[Path], None] | None = None

    @property
    def file_name(self) -> str:
        """File name of the archive."""
        return self.url.rsplit("/", 1)[1]


def tool_parser(description: str | None, folder: str) -> argparse.ArgumentParser:
    """Returns the argument parser that the tools share; ``folder`` is the default folder of the data set."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(folder))
    parser.add_argument("--no-download", action="store_true", help="only verify, and extract archives that exist")
    parser.add_argument("--mirror", help="base URL to download the archives from, instead of the official URLs")
    return parser


def prepare(folder: Path, parts: Sequence[Part], *, may_download: bool = True, mirror: str | None = None) -> int:
    """Verifies a data set, and completes it from archives in its folder or on a server, which are kept.

    Prints findings and instructions. The URL ``mirror`` replaces the folders of the official URLs. Returns the exit
    status: 0 if the data set is complete, else 2.
    """
    missing = [part for part in parts if not _complete(folder, part, may_download, mirror)]
    if not missing:
        return 0
    print(
        f"\nIncomplete: {', '.join(part.name for part in missing)}. Download these files by other means (`wget -c` "
        f"resumes a download), put them into {folder} and run this command again:"
    )
    for part in missing:
        print(f"  {part.url}\n    -> {folder / part.file_name}  (MD5 {part.md5})")
    return 2


def _complete(folder: Path, part: Part, may_download: bool, mirror: str | None) -> bool:
    archive = folder / part.file_name
    try:
        if _is_complete(folder, part):
            return True
        if archive.is_file():
            print(f"  verifying {archive}", flush=True)
            _verify(archive, part.md5, f"{archive} is not the official file", "Remove it")
        elif may_download:
            url = f"{mirror.rstrip('/')}/{part.file_name}" if mirror else part.url
            print(f"  downloading {url}", flush=True)
            download(url, archive, part.md5)
        else:
            return False
        print(f"  extracting {archive}", flush=True)
        extract(archive, folder)
        return _is_complete(folder, part)
    except (OSError, ValueError) as error:
        print(f"  {error}", file=sys.stderr, flush=True)
        return False


def _is_complete(folder: Path, part: Part) -> bool:
    findings = list(part.check(folder))
    if part.build is not None and not all(complete for complete, _ in findings):
        part.build(folder)
        findings = list(part.check(folder))
    print(f"{part.name}: {'; '.join(found for _, found in findings)}", flush=True)
    return all(complete for complete, _ in findings)


def _verify(path: Path, md5: str, problem: str, remedy: str) -> None:
    if (found := calculate_md5(path)) != md5:
        raise ValueError(f"{problem}: its MD5 is {found}, expected {md5}. {remedy}")


def download(url: str, path: Path, md5: str) -> None:
    """Downloads a file and renames it once its checksum is verified; a failed download leaves no file.

    Raises OSError if the server cannot be reached or refuses the file, and ValueError if the checksum is wrong.
    """
    partial = path.with_name(f"{path.name}.partial")
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)  # torchvision passes none
    try:
        partial.unlink(missing_ok=True)  # torchvision keeps a file that exists
        download_url(url, path.parent, partial.name)
        problem = f"{url} was truncated, or a proxy or mirror sent another file"
        _verify(partial, md5, problem, "The download was removed; run this command again")
        os.replace(partial, path)
    except (OSError, http.client.HTTPException, RecursionError) as error:
        raise OSError(f"{url}: {error or type(error).__name__}") from error
    finally:
        socket.setdefaulttimeout(timeout)
        partial.unlink(missing_ok=True)


def extract(archive: Path, folder: Path) -> None:
    """Extracts the regular files of a zip or tar archive; moves them into the folder once all are extracted.

    Links and devices are skipped. Raises ValueError if the file is not an archive, is damaged, has a member outside of
    ``folder``, or holds more than it states.
    """
    partial = folder / f"{archive.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, partial)
        else:
            _extract_tar(archive, partial)
        for path in [path for path in partial.rglob("*") if path.is_file()]:
            target = folder / path.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
    except _DAMAGE as error:
        raise ValueError(f"{archive} cannot be extracted: {error}. Remove it and run this command again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 from systems without kinds
            if member.is_dir() or kind not in (0, stat.S_IFREG):
                continue
            with opened.open(member) as source:
                _write(source, member.filename, member.file_size, folder)


def _extract_tar(archive: Path, folder: Path) -> None:
    # Not extractall(filter="data"): until Python 3.11.12, crafted links lead it outside of the folder.
    with tarfile.open(archive) as opened:
        for member in opened:
            if member.isreg() and not member.issparse() and (source := opened.extractfile(member)):
                _write(source, member.name, member.size, folder)


def _write(source: IO[bytes], name: str, size: int, folder: Path) -> None:
    """Writes a member of at most ``size`` bytes to its place inside of a folder that has no links."""
    path = PureWindowsPath(name)  # also splits at backslashes and detects drives
    if "\0" in name or path.anchor or name.startswith("/") or ".." in path.parts or not path.parts:
        raise zipfile.BadZipFile(f"{name!r} is outside of the folder")
    target = folder.joinpath(*path.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file:
        left = size
        while block := source.read(min(1 << 20, left + 1)):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"{name!r} is larger than stated")
            file.write(block)
    if left:
        raise EOFError(f"{name!r} is truncated")
