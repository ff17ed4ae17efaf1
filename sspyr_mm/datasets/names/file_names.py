"""Resolution of image file names that other systems and annotation tools wrote."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

# Number of names, sampled evenly, that are checked to locate the images.
_PROBED = 32


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


def _readings(names: Sequence[str]) -> list[Callable[[str], str]]:
    depth = max(_local(name).count("/") for name in names)
    return [str, _slashes, _local, *(partial(_tail, dropped) for dropped in range(depth + 1))]


def resolve_names(names: Sequence[str], folders: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Finds the files of names: as written, else as Windows paths or URLs, else by the last parts of the path.

    All names are interpreted alike: by the first interpretation and folder for which all sampled names exist, else by
    those for which most exist.

    Returns:
        One path per name, some of which may not exist; empty if no sampled name exists.

    Raises:
        ValueError: If different names resolve to one file because their folders are removed.
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
    if read is str:
        return paths
    first: dict[str, str] = {}
    for name, path in zip(names, paths, strict=True):
        if first.setdefault(path, name) != name:
            raise ValueError(
                f"{first[path]} and {name} both resolve to {path}: keep the folders in the names, or "
                "write names relative to the folder of the images"
            )
    return paths


def find_coco_images(annotations: Path, names: Sequence[str], folder: str = "") -> list[str]:
    """Returns the paths of the images ``names`` of a COCO json, a sample of which is checked.

    Searches ``folder``, or else the places that annotation tools use: the folder of the json, its parent, and their
    sub-folders named ``images`` or like the json.

    Raises:
        FileNotFoundError: If no sampled image exists.
        ValueError: If different names resolve to one file.
    """
    if not names:
        return []
    split = annotations.stem.removeprefix("instances_").removeprefix("image_info_")
    here, above = annotations.parent, annotations.parent.parent
    images = (above / "images" / split, here / "images" / split, above / "images", here / "images")
    places: list[str | Path] = [folder] if folder else [here, here / split, above / split, above, *images]
    if paths := resolve_names(names, places):
        return paths
    raise FileNotFoundError(
        f"The images of {annotations} were not found: no {names[0]} in {', '.join(map(str, places))}"
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
