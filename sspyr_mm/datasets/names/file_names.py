"""Image files that annotations name in the ways of other systems and annotation tools."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

_PROBED = 32
"""Names that are looked for to find out where the images are, spread over all names."""


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _local(name: str) -> str:
    """Path in a URL, unescaped; in Label Studio's URLs of local files it follows ``?d=``."""
    name = _slashes(name)
    if "?d=" in name:
        name = name.split("?d=", 1)[1]
    elif "://" in name:
        name = name.split("://", 1)[1].split("?", 1)[0]
    return _slashes(unquote(name))


def _tail(dropped: int, name: str) -> str:
    """Path without its first folders, of which ``..`` and a drive are some; the bare name where it has no more."""
    parts = [part for part in _local(name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts[min(dropped, len(parts) - 1) :]) if parts else name


def _readings(names: Sequence[str]) -> list[Callable[[str], str]]:
    depth = max(_local(name).count("/") for name in names)
    return [str, _slashes, _local, *(partial(_tail, dropped) for dropped in range(depth + 1))]


def resolve_names(names: Sequence[str], folders: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Finds the files that names stand for: as they are, else as paths of Windows or URLs, else by their last parts.

    All names are read alike, in the first way and folder in which all probed names are files, else in those in which
    most are.

    Args:
        names: Names in annotations.
        folders: Folders to look in, the first first.

    Returns:
        A path per name, of which some may not exist; nothing if no probed name is a file.

    Raises:
        ValueError: If different names lead to one file once their folders are dropped.
    """
    if not names:
        return []
    probed = names[:: max(1, len(names) // _PROBED)]
    best, most = None, 0
    for read, folder in product(_readings(probed), folders):
        count = sum(os.path.isfile(os.path.join(folder, read(name))) for name in probed)
        if count > most:
            best, most = (read, folder), count
        if most == len(probed):
            break
    if best is None:
        return []
    read, folder = best
    paths = [os.path.join(folder, read(name)) for name in names]
    if read is not str:
        _check_distinct(names, paths)
    return paths


def _check_distinct(names: Sequence[str], paths: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        if first.setdefault(path, name) != name:
            raise ValueError(
                f"{first[path]} and {name} are both read as {path}: keep the folders of the names, or "
                "write names below the folder of the images"
            )


def find_coco_images(annotations: Path, names: Sequence[str], folder: str = "") -> list[str]:
    """Finds the images of a COCO json where annotation tools put them.

    Args:
        annotations: COCO json.
        names: Its ``file_name`` entries.
        folder: Folder to look in; default: that of the json, its parent, and their folders ``images`` and of the
            json's own name.

    Returns:
        Their paths. Only some of them were looked for.

    Raises:
        FileNotFoundError: If none of those was found.
        ValueError: If different names lead to one file.
    """
    if not names:
        return []
    split = annotations.stem.removeprefix("instances_").removeprefix("image_info_")
    parent = annotations.parent
    places = (
        [folder]
        if folder
        else [
            os.fspath(above / below)
            for above, below in (
                (parent, ""),
                (parent, split),
                (parent.parent, split),
                (parent.parent, ""),
                (parent.parent, f"images/{split}"),
                (parent, f"images/{split}"),
                (parent.parent, "images"),
                (parent, "images"),
            )
        ]
    )
    if paths := resolve_names(names, places):
        return paths
    raise FileNotFoundError(
        f"The images of {annotations} were not found: no {names[0]} in {', '.join(map(str, places))}"
        f"{_near(names[0], places)}. Set data_prefix=dict(img_path=FOLDER), or image_root=FOLDER of a labelled set "
        "(for evaluate --train-images, --test-images)"
    )


def _near(name: str, folders: Sequence[str | os.PathLike[str]]) -> str:
    """File that differs from a name in case or ending only, for a message."""
    wanted = PurePosixPath(_local(name))
    for folder in folders:
        for found in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if found.casefold() == wanted.name.casefold():
                return f" (but {os.path.join(folder, found)}: names must agree in case)"
            if os.path.splitext(found)[0] == wanted.stem and found != wanted.name:
                return f" (but {os.path.join(folder, found)}: names must agree in their ending)"
    return ""
