"""Extraction that stays inside its folder, and goes on where it was stopped."""

import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO


def extract(archive: Path, folder: Path) -> None:
    """Extracts a zip or tar archive; files that are there in their full size are left alone.

    Every file appears when it is complete, so that what an interrupted extraction has left is either whole or done
    again.

    Args:
        archive: The file.
        folder: Where to.

    Raises:
        ValueError: If it is no archive or a broken one, or has a member outside of ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _extract_tar(archive, folder)
        else:
            raise ValueError(
                f"{archive} is neither a zip nor a tar archive: remove it, and have it downloaded again"
            )
    except tarfile.FilterError as error:
        raise ValueError(
            f"{archive} would write outside of {folder} or is unsafe otherwise: {error}; remove it"
        ) from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise ValueError(
            f"{archive} is broken ({error}): remove it, and have it downloaded again"
        ) from error


def _extract_zip(archive: Path, folder: Path) -> None:
    root = folder.resolve()
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            target = (root / info.filename).resolve()
            if not target.is_relative_to(root):
                raise ValueError(
                    f"{archive} would write outside of {folder}: {info.filename!r}; remove it"
                )
            if info.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif not _is_there(target, info.file_size):
                with opened.open(info) as source:
                    _write(source, target)


def _extract_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        for member in opened:
            # The filter refuses members that lead outside, devices, and links to either.
            safe = tarfile.data_filter(member, str(folder))
            target = folder / safe.name
            if not safe.isfile():
                opened.extract(member, folder, filter="data")
            elif not _is_there(target, safe.size):
                source = opened.extractfile(member)
                assert source is not None  # it is a file
                with source:
                    _write(source, target)


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    os.replace(partial, target)
