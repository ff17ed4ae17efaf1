"""A data set as the archives it comes in: verified, and completed."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sspyr_mm.datasets.preparation.archives import extract
from sspyr_mm.datasets.preparation.download import DownloadError, download, file_md5


@dataclass(frozen=True)
class Part:
    """One archive, and how to tell that its content is there.

    Args:
        name: What it is.
        url: Official address.
        md5: Checksum of the archive.
        find: Folder of the data set -> (whether the part is complete, what was found).
        build: Makes what ``find`` looks for of what the archive holds, as far as that is unpacked.
    """

    name: str
    url: str
    md5: str
    find: Callable[[Path], tuple[bool, str]]
    build: Callable[[Path], None] | None = None

    @property
    def file_name(self) -> str:
        """Name of the archive."""
        return self.url.rsplit("/", 1)[1]


def prepare(
    folder: Path, parts: Sequence[Part], *, may_download: bool = True, mirror: str | None = None
) -> int:
    """Verifies a data set and completes it: from archives in the folder, else from their server.

    Args:
        folder: Of the data set. Archives are kept there.
        parts: What it consists of.
        may_download: Whether to download what is missing.
        mirror: Address that the archives' names are appended to, in place of the official ones.

    Returns:
        0 if the data set is complete, else 2; what was found and what is to be done was printed.
    """
    if may_download:
        folder.mkdir(parents=True, exist_ok=True)
    missing = [part for part in parts if not _complete(folder, part, may_download, mirror)]
    if not missing:
        return 0
    print(
        f"\nIncomplete: {', '.join(part.name for part in missing)}. Download by any means, put the files into {folder} "
        "as they are, and run this command again:"
    )
    for part in missing:
        print(f"  {part.url}\n    -> {folder / part.file_name}  (MD5 {part.md5})")
    return 2


def _complete(folder: Path, part: Part, may_download: bool, mirror: str | None) -> bool:
    """Brings one part into the folder, if it can be had."""
    archive = folder / part.file_name
    try:
        if _is_complete(folder, part):
            return True
        if archive.is_file():
            print(f"  verifying {archive}", flush=True)
            if (md5 := file_md5(archive)) != part.md5:
                raise ValueError(
                    f"{archive} is not the official file: its MD5 is {md5}, {part.md5} is right; remove it"
                )
        elif may_download:
            url = f"{mirror.rstrip('/')}/{part.file_name}" if mirror else part.url
            print(f"  downloading {url}", flush=True)
            download(url, archive, md5=part.md5, progress=_show_progress)
        else:
            return False
        print(f"  extracting {archive}", flush=True)
        extract(archive, folder)
        return _is_complete(folder, part)
    except (DownloadError, ValueError) as error:
        print(f"  {error}", file=sys.stderr, flush=True)
        return False


def _is_complete(folder: Path, part: Part) -> bool:
    """Whether a part is there, after building what can be built without its archive."""
    done, found = part.find(folder)
    if not done and part.build is not None:
        part.build(folder)
        done, found = part.find(folder)
    print(f"{part.name}: {found}", flush=True)
    return done


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(
            f"\r  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", end=end, file=sys.stderr, flush=True
        )
