"""Names in annotations and lists: classes and their colours, image files, and VOC's image ids."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from sspyr_mm.datasets.text import read_lines
from sspyr_mm.files import shortened

_PROBED = 32
"""Number of names, sampled evenly, that are checked to locate the images."""
_AFTER_ID = re.compile(r"\s+(-?[01]|\S+\.png)$")
"""Text that may follow an image in a VOC list: whether it shows the class of the list, or its mask."""
_ENDING = re.compile(r"\.[a-z]\w{1,3}$", re.IGNORECASE)


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Returns the groups of two or more names that differ only in case or spaces."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault("".join(name.split()).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def repeated(names: Iterable[str]) -> list[str]:
    """Returns the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def warn_of_alike_classes(classes: Iterable[str], source: str | os.PathLike[str]) -> None:
    """Warns about class names of ``source`` that probably mean one class: each counts as a separate class."""
    if groups := alike_names(classes):
        shown = shortened(" / ".join(map(repr, group)) for group in groups)
        warnings.warn(
            f"{source}: class names differ only in case or spaces: {shown}; each counts as a separate class. If "
            "they mean one class, use one spelling",
            stacklevel=3,
        )


def voc_colours(count: int) -> list[list[int]]:
    """Returns VOC's RGB mask colours, 0 to 255, of ``count`` classes including the background, at most 256.

    The bits of a class id are spread over the high bits of the three channels.
    """
    return [
        [sum((number >> (3 * bit + c) & 1) << (7 - bit) for bit in range(8)) for c in range(3)]
        for number in range(count)
    ]


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _local(name: str) -> str:
    """Returns the unescaped path of a URL; in Label Studio's URLs of local files it follows ``?d=``."""
    name = _slashes(name)
    if "?d=" in name:
        name = name.split("?d=", 1)[1]
    elif "://" in name:
        name = name.split("://", 1)[1].split("?", 1)[0]
    return _slashes(unquote(name))


def _tail(dropped: int, name: str) -> str:
    """Removes the first ``dropped`` folders of a path, but never the file name; a drive counts as a folder."""
    parts = [part for part in _local(name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts[min(dropped, len(parts) - 1) :]) if parts else name


def resolve_names(names: Sequence[str], folders: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Finds the files of names: as written, else as Windows paths or URLs, else by the last parts of the path.

    All names are interpreted alike: by the first interpretation and folder for which all sampled names exist, else by
    those for which most exist. Returns one path per name, some of which may not exist; empty if no sampled name exists.
    Raises ValueError if different names resolve to one file because their folders are removed.
    """
    if not names:
        return []
    probed = names[:: max(1, len(names) // _PROBED)]
    depth = max(_local(name).count("/") for name in probed)
    tails = (partial(_tail, dropped) for dropped in range(depth + 1))
    readings: list[Callable[[str], str]] = [str, _slashes, _local, *tails]
    best, most = None, 0
    for read, folder in product(readings, folders):
        count = sum(os.path.isfile(os.path.join(folder, read(name))) for name in probed)
        if count > most:
            best, most = (read, folder), count
        if most == len(probed):
            break
    if best is None:
        return []
    read, folder = best
    paths = [os.path.join(folder, read(name)) for name in names]
    first: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        if read is not str and first.setdefault(path, name) != name:
            raise ValueError(
                f"{first[path]} and {name} both resolve to {path}: keep the folders in the names, or "
                "write names relative to the folder of the images"
            )
    return paths


def find_coco_images(annotations: Path, names: Sequence[str], folder: str = "") -> list[str]:
    """Returns the paths of the images ``names`` of a COCO json, a sample of which is checked.

    Searches ``folder``, or else the places that annotation tools use: the folder of the json, its parent, and their
    sub-folders named ``images`` or like the json. Raises FileNotFoundError if no sampled image exists, and the errors
    of :func:`resolve_names`.
    """
    split = annotations.stem.removeprefix("instances_").removeprefix("image_info_")
    here, above = annotations.parent, annotations.parent.parent
    images = (above / "images" / split, here / "images" / split, above / "images", here / "images")
    places: list[str | Path] = [folder] if folder else [here, here / split, above / split, above, *images]
    paths = resolve_names(names, places)
    if paths or not names:
        return paths
    raise FileNotFoundError(
        f"The images of {annotations} were not found: no {names[0]:.300} in {', '.join(map(str, places))}"
        f"{_near(names[0], places)}. Set data_prefix=dict(img_path=FOLDER), or image_root=FOLDER of a labelled set "
        "(for evaluate --train-images, --test-images)"
    )


def _near(name: str, folders: Sequence[str | os.PathLike[str]]) -> str:
    """Returns a note about a file that differs from a name only in case or extension, or an empty text."""
    wanted = PurePosixPath(_local(name))
    for folder in folders:
        for found in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if found.casefold() == wanted.name.casefold():
                return f" (but {os.path.join(folder, found)} exists: names must match in case)"
            if os.path.splitext(found)[0] == wanted.stem and found != wanted.name:
                return f" (but {os.path.join(folder, found)} exists: names must match in extension)"
    return ""


def read_voc_ids(path: str | os.PathLike[str], exists: Callable[[str], bool]) -> list[str]:
    """Returns the image ids of a list of VOC's ``ImageSets``, one per line.

    A line may also be ``ID 1``, as in VOC's lists per class, or the file name or path of the image, with or without
    that of its mask, if ``exists`` is true for the id in it; else it is returned unchanged. Ids may contain spaces.
    Raises ValueError if the list is empty, contains duplicates, or is not Unicode text.
    """
    ids = [next(filter(exists, _ids_in(line)), line) for line in read_lines(path)]
    if not ids:
        raise ValueError(f"{path} is empty: write one image id per line, such as 2007_000032")
    if twice := repeated(ids):
        raise ValueError(f"{path} lists {len(twice)} images more than once, such as {twice[0]}: keep each once")
    return ids


def _ids_in(line: str) -> Iterator[str]:
    for one in (line, _AFTER_ID.sub("", line)):
        path = _slashes(one)
        for name in (path, path.rpartition("/")[2]):
            yield from (one, name, _ENDING.sub("", name))
