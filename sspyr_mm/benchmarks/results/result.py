"""What a protocol measured: one JSON file a result, complete enough to be believed later."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sspyr_mm.compat import find_distribution
from sspyr_mm.files import write_json

__all__ = [
    "Result",
    "find_predictions",
    "find_results",
    "fingerprint",
    "matches",
    "package_versions",
    "read_result",
    "write_result",
]

_VERSIONED = (*("torch", "torchvision", "numpy", "pycocotools"), *("mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg"))

_TYPES = {
    **dict.fromkeys(("network", "protocol", "data", "metric", "data_sha256"), str),
    **dict.fromkeys(("checkpoint", "counts", "settings", "further", "versions"), dict),
    "seed": int,
    "as_published": bool,
}
"""Of the fields in a file; ``type() is``, as a bool is an int, too."""
_PREDICTIONS = "predictions"
"""Further figure that is a folder of drawn predictions."""
_HIGHEST = 100 + 1e-6
"""Percent; a mean of hundreds may be a rounding error above."""


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
        further: Further figures, such as per-class precision; what was chosen by looking at the test set says so in
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
    further: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The figure in one line."""
        figure = f"{self.data} {self.protocol}: {self.metric} {self.value:.1f}"
        return f"{figure}  {self.network} {self.checkpoint['sha256'][:8]}, seed {self.seed}"


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages a figure may depend on."""
    import sspyr_mm

    versions = {"python": platform.python_version(), "sspyr_mm": sspyr_mm.__version__}
    return versions | dict(filter(None, map(find_distribution, _VERSIONED)))


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
    write_json(path, asdict(result))


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
        content = json.loads(Path(path).read_text())
        if "beside" in content:  # its name until version 0.2
            content["further"] = content.pop("beside")
        result = Result(**content)
        _check(result)
        return result
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a result of `evaluate`: {error}") from error


def matches(result: Result, *, protocol: str, data: str, seed: int, identity: str, data_sha256: str) -> bool:
    """Whether a result is of what is asked for: a file may have been renamed, copied or edited.

    Args:
        result: As read.
        protocol: As :class:`Result`.
        data: As :class:`Result`.
        seed: As :class:`Result`.
        identity: Of the network, as in ``Result.checkpoint``.
        data_sha256: As :class:`Result`.
    """
    found = (result.protocol, result.data, result.seed, result.data_sha256)
    return found == (protocol, data, seed, data_sha256) and result.checkpoint.get("identity") == identity


def _check(result: Result) -> None:
    """Refuses what a file must not hold, and a table would show.

    Raises:
        TypeError: If a field is of another type.
        ValueError: If the value is no percentage.
    """
    for name, kind in _TYPES.items():
        if type(value := getattr(result, name)) is not kind:
            raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")
    if type(result.value) not in (int, float) or not 0 <= result.value <= _HIGHEST:
        raise ValueError(f"value must be a number of percent, 0 to 100, got {result.value!r}")
    for name, count in result.counts.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"counts: {name} must be an integer >= 0, got {count!r}")
    for place, name in ((result.settings, "changed"), (result.further, "AP_per_class")):
        if not isinstance(place.get(name, {}), dict):
            raise TypeError(f"{name} must be of type dict, got {place[name]!r}")


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


def find_predictions(results: Sequence[Result], work_dir: str) -> dict[str, dict[str, str]]:
    """Folders of drawn predictions that can be compared: of these results, and of earlier ones measured alike.

    Args:
        results: What was measured now.
        work_dir: Folder that it was measured in, searched for earlier results.

    Returns:
        Name of a sheet, one for each protocol and data set: folder by network, of its first seed.
    """
    drawn = [result for result in results if _PREDICTIONS in result.further]
    now = set(map(_measured_how, drawn))
    sheets: dict[str, dict[str, str]] = {}
    for result in (*drawn, *(find_results([work_dir]) if drawn else ())):
        folder = os.path.join(work_dir, result.further.get(_PREDICTIONS, "none"))
        if result in drawn or (_measured_how(result) in now and os.path.isdir(folder)):
            name = f"predictions-{result.protocol}-{result.data}.jpg"
            sheets.setdefault(name, {}).setdefault(result.network, folder)
    return sheets


def _measured_how(result: Result) -> tuple[str, ...]:
    """Equal for results whose predictions are comparable."""
    changed = json.dumps(result.settings.get("changed"), sort_keys=True)
    return (result.protocol, result.data_sha256, changed)
