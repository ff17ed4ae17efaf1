"""What a protocol measured: one JSON file a result, complete enough to be believed later."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from sspyr_mm.files import whole_file

_VERSIONED = ("torch", "torchvision", "mmengine", "mmcv", "mmpretrain", "numpy")


@dataclass(frozen=True)
class Result:
    """One figure.

    Args:
        network: What was measured, as a table names it.
        protocol: Name of the protocol, ``linear`` for example.
        data: Name of the data, ``voc07`` for example.
        seed: Of the evaluation.
        metric: What ``value`` is, ``mAP`` for example.
        value: In percent; after the last epoch.
        as_published: Whether settings and data are those of the published figures, so that the two can be compared.
        checkpoint: ``sha256``, ``format`` and ``path`` of what was measured.
        counts: Images and classes.
        data_sha256: Of classes, images and labels.
        settings: Numbers of the protocol; ``changed``: those that differ from it.
        beside: Further figures, such as per-class precision; what was chosen by looking at the test set says so in
            its name.
        versions: Of Python and the packages that matter.
    """

    network: str
    protocol: str
    data: str
    seed: int
    metric: str
    value: float
    as_published: bool
    checkpoint: Mapping[str, Any]
    counts: Mapping[str, int]
    data_sha256: str
    settings: Mapping[str, Any]
    beside: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages a figure may depend on."""
    import sspyr_mm

    versions = {"python": platform.python_version(), "sspyr_mm": sspyr_mm.__version__}
    for name in _VERSIONED:
        for distribution in (name, f"onedl-{name}"):
            try:
                versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    return versions


def fingerprint(*parts: Any) -> str:
    """A short hash of values that JSON can express: equal values, equal hash.

    Args:
        *parts: Values.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_result(result: Result, path: str | os.PathLike) -> None:
    """Writes a result; the file appears only when it is whole.

    Args:
        result: What to write.
        path: JSON file; folders are made.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(asdict(result), indent=1) + "\n")


def read_result(path: str | os.PathLike) -> Result:
    """Reads a result.

    Args:
        path: JSON file written by :func:`write_result`.

    Returns:
        The result.

    Raises:
        ValueError: If the file holds none.
    """
    try:
        result = Result(**json.loads(Path(path).read_text()))
        if not isinstance(result.value, (int, float)):
            raise TypeError(f"its value is {result.value!r}")
        return result
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a result of `evaluate`: {error}") from error


def find_results(places: list[str]) -> Iterator[Result]:
    """Reads all results under some folders.

    Args:
        places: Result files, or folders that are searched in depth for ``result-*.json``.

    Yields:
        Results, in the order of the places and of file names.

    Raises:
        FileNotFoundError: If a place does not exist.
        ValueError: If a file holds no result, or a folder none.
    """
    for place in places:
        if not os.path.exists(place):
            raise FileNotFoundError(f"There is nothing at {place}: give work dirs of `evaluate`")
        files = sorted(Path(place).rglob("result-*.json")) if os.path.isdir(place) else [place]
        if not files:
            raise ValueError(f"No result in {place}: `evaluate` writes result-*.json files")
        for file in files:
            yield read_result(file)
