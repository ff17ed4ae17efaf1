"""Recursive search for images in a folder."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from sspyr_mm.datasets.finding.file_kinds import IMAGE_SUFFIXES, NUM_BYTES, OTHER_SUFFIXES, image_kind, missing_reader
from sspyr_mm.files import printable, read_regular

# fmt: off
_SERVER_FOLDERS = {
    "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "__MACOSX",
    "lost+found",
}
# fmt: on
"""Folders that file servers and operating systems create; they contain thumbnails and deleted files."""
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
_TRIALS = 64
"""Number of files of an unknown extension that are opened before the others are assumed to be of the same kind."""


class ImageFinder:
    """Finds images in folders and their sub-folders, and counts all other files.

    Files with the extension of a readable format are not opened. Files with an unknown extension, or none, are detected
    by their first bytes; if the first 64 files of an extension are all images, or all other files, the rest is assumed
    to be the same. With ``suffixes``, in lower case, images are detected by these extensions only. Hidden files and
    folders, and those of file servers (``@eaDir``), are ignored.
    """

    def __init__(self, suffixes: tuple[str, ...] | None = None) -> None:
        self.suffixes = suffixes
        self._readable = {suffix for suffix in IMAGE_SUFFIXES if suffixes is None and missing_reader(suffix) is None}
        self.skipped: Counter[str] = Counter()
        """Number of files that are not readable images, by kind."""
        self._trials: dict[str, list[int]] = {}

    def find(self, folder: Path) -> list[str]:
        """Returns the sorted paths of the images in a folder and its sub-folders, following links.

        Raises FileNotFoundError if the folder does not exist, and PermissionError if a folder cannot be read.
        """
        found: list[str] = []
        seen, waiting = set(), [str(folder)]
        while waiting:
            current = waiting.pop()
            real = os.path.realpath(current)
            if real in seen:  # a link to a parent folder, or a second path of a folder
                continue
            seen.add(real)
            folders, files = _scan(current)
            found += self._images(current, files)
            # Sorted, so that every machine uses the same one of two paths of a folder.
            waiting += [os.path.join(current, name) for name in sorted(folders, reverse=True)]
        return sorted(found)

    def _images(self, folder: str, files: dict[str, bool]) -> Iterator[str]:
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            path = f"{folder}{os.sep}{name}"
            if not files[name]:
                self.skipped["broken links, pipes, sockets or devices"] += 1
            elif suffix in self._readable or self._is_image(path, suffix):
                yield path
            elif name.lower() not in _SYSTEM_FILES:
                self.skipped[suffix or "without an extension"] += 1

    def _is_image(self, path: str, suffix: str) -> bool:
        if self.suffixes is not None:
            return path.lower().endswith(self.suffixes)
        if suffix in OTHER_SUFFIXES:
            return False
        images, tried = counts = self._trials.setdefault(suffix, [0, 0])
        if tried >= _TRIALS and images in (0, tried):
            return images > 0
        head = b""
        with suppress(OSError):
            head = read_regular(path, first=NUM_BYTES)
        kind = image_kind(head)
        is_image = kind is not None and missing_reader(f".{kind.lower()}") is None
        counts[:] = [images + is_image, tried + 1]
        return is_image

    def notice(self, num_images: int) -> str | None:
        """Returns a line about the skipped files, given the number of found images; None if no file was skipped."""
        if not (total := self.skipped.total()):
            return None
        kinds = []
        for kind, count in self.skipped.most_common(8):
            reader = missing_reader(kind)
            kinds.append(f"{count} {printable(kind)}" + (f" (install {reader})" if reader else ""))
        if len(self.skipped) > 8:
            kinds.append(f"{len(self.skipped) - 8} more kinds")
        return f"{total} of {total + num_images} files skipped: {', '.join(kinds)}"


def _scan(folder: str) -> tuple[list[str], dict[str, bool]]:
    """Returns the names of sub-folders, and of files with whether each is regular; hidden names are ignored."""
    folders, files = [], {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_file(follow_symlinks=False):  # almost all of them, without a system call
                    files[entry.name] = True
                elif not is_kind(entry.is_dir):
                    files[entry.name] = is_kind(entry.is_file)
                elif entry.name not in _SERVER_FOLDERS:
                    folders.append(entry.name)
    except PermissionError as error:
        raise PermissionError(f"Cannot read {printable(folder)}: grant this user read access (chmod u+rx)") from error
    except OSError as error:
        raise FileNotFoundError(f"{printable(folder)}: {error.strerror}; give an existing folder") from error
    return folders, files


def is_kind(kind: Callable[[], bool]) -> bool:
    """Returns the result of a check of an entry; False for circular links and links to inaccessible places."""
    try:
        return kind()
    except OSError:
        return False
