"""Results of protocols: one JSON file per result, with everything needed to compare it later."""

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sspyr_mm.compat import find_distribution
from sspyr_mm.files import read_regular, write_json

_VERSIONED = (*("torch", "torchvision", "numpy", "pycocotools"), *("mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg"))

_TYPES = {
    **dict.fromkeys(("network", "protocol", "data", "metric", "data_sha256"), str),
    **dict.fromkeys(("checkpoint", "counts", "settings", "further", "versions"), dict),
    "seed": int,
    "as_published": bool,
}
"""Types of the fields in a file, compared by ``type() is``: a bool is also an int."""
_PREDICTIONS = "predictions"  # entry of `further` that is the folder of drawn predictions
_MAX_BYTES = 64 << 20  # size of a file that is read
_HIGHEST = 100 + 1e-6  # highest percentage: a mean of values of 100 may exceed 100 by a rounding error


@dataclass(frozen=True)
class Result:
    """Result of one network, protocol, data set and seed."""

    network: str  # name in tables
    protocol: str  # name, such as linear
    data: str  # name of the data set, such as voc07
    seed: int  # random seed of the evaluation
    metric: str  # name, such as mAP
    value: float  # of the metric after the last epoch, in percent
    as_published: bool  # whether settings and data equal those of the published results, so that they are comparable
    checkpoint: Mapping[str, Any]  # sha256, format and path of the checkpoint, among others
    counts: Mapping[str, int]  # of training images, test images and classes
    data_sha256: str  # hash of classes, images and labels
    settings: Mapping[str, Any]  # of the run; `changed` holds those that differ from the protocol
    # Other metrics, such as per-class precision. Names say so if a value was selected on the test set.
    further: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)  # of Python and packages that may affect the result

    @property
    def request(self) -> tuple[Any, ...]:
        """Protocol, data, seed, labels and network that it is the result of."""
        return (self.protocol, self.data, self.seed, self.data_sha256, self.checkpoint.get("identity"))

    @property
    def changed(self) -> Mapping[str, Any]:
        """Settings that differ from the published ones."""
        return self.settings.get("changed", {})

    @property
    def line(self) -> str:
        """The result in one line."""
        figure = f"{self.data} {self.protocol}: {self.metric} {self.value:.1f}"
        return f"{figure}  {self.network} {self.checkpoint['sha256'][:8]}, seed {self.seed}"


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that may affect a result."""
    import sspyr_mm

    versions = {"python": platform.python_version(), "sspyr_mm": sspyr_mm.__version__}
    return versions | dict(filter(None, map(find_distribution, _VERSIONED)))


def fingerprint(*parts: Any) -> str:
    """Returns a hash of values that JSON can express, as 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def without_nan(figures: Mapping[Any, float]) -> dict[str, float | None]:
    """Replaces NaN and infinities, which JSON does not have, by None."""
    return {str(name): value if math.isfinite(value) else None for name, value in figures.items()}


def write_result(result: Result, path: str | os.PathLike) -> None:
    """Writes a result to a JSON file atomically; its folder is created."""
    write_json(path, asdict(result))


def read_result(path: str | os.PathLike) -> Result:
    """Reads a file written by :func:`write_result`; raises ValueError if it does not hold a result."""
    try:
        content = json.loads(read_regular(path, max_bytes=_MAX_BYTES))
        if isinstance(content, dict) and isinstance(further := content.get("beside"), dict):  # names until version 0.2
            del content["beside"]
            content["further"] = {{"pictures": "predictions"}.get(key, key): value for key, value in further.items()}
        result = Result(**content)
        _check(result)
        return result
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a result of `evaluate`: {error}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _check(result: Result) -> None:
    """Raises TypeError or ValueError for field values that a table cannot show."""
    for name, kind in _TYPES.items():
        if type(value := getattr(result, name)) is not kind:
            raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")
    if type(result.value) not in (int, float) or not 0 <= result.value <= _HIGHEST:
        raise ValueError(f"value must be a percentage between 0 and 100, got {result.value!r}")
    for name, count in result.counts.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"counts: {name} must be an integer >= 0, got {count!r}")
    inner: tuple[tuple[Mapping[str, Any], str, Any], ...] = (
        (result.settings, "changed", dict),
        (result.further, "AP_per_class", dict),
        (result.further, "train_images", int),
        (result.further, _PREDICTIONS, str),
        *((result.checkpoint, name, (str, type(None))) for name in ("sha256", "identity", "place")),
        *((result.versions, name, str) for name in result.versions),
    )
    for place, name, kinds in inner:
        if name in place and not isinstance(place[name], kinds):
            wanted = kinds.__name__ if isinstance(kinds, type) else "str"
            raise TypeError(f"{name} must be of type {wanted}, got {place[name]!r:.80}")


def find_results(places: list[str]) -> Iterator[Result]:
    """Yields the results in files, and in folders searched recursively for ``result-*.json``, in order of file names.

    Raises FileNotFoundError if a place does not exist, ValueError if a file is not a result or a folder holds none.
    """
    for place in places:
        if not os.path.exists(place):
            raise FileNotFoundError(f"{place} does not exist: give work dirs of `evaluate`")
        files = sorted(Path(place).rglob("result-*.json")) if os.path.isdir(place) else [place]
        if not files:
            raise ValueError(f"No result in {place}: `evaluate` writes result-*.json files")
        yield from map(read_result, files)


def find_predictions(results: Sequence[Result], work_dir: str) -> dict[str, dict[str, str]]:
    """Finds folders of drawn predictions: of these results, and of comparable earlier ones in ``work_dir``.

    Returns the folder of the first seed, by network, by the file name of the sheet of a protocol and data set.
    """
    drawn = [result for result in results if _PREDICTIONS in result.further]
    now = set(map(_comparable, drawn))
    sheets: dict[str, dict[str, str]] = {}
    for result in (*drawn, *(find_results([work_dir]) if drawn else ())):
        folder = os.path.join(work_dir, result.further.get(_PREDICTIONS, "none"))
        if result in drawn or (_comparable(result) in now and os.path.isdir(folder)):
            name = f"predictions-{result.protocol}-{result.data}.jpg"
            sheets.setdefault(name, {}).setdefault(result.network, folder)
    return sheets


def _comparable(result: Result) -> tuple[str, ...]:
    """Returns a key that is equal for results whose predictions are comparable."""
    return (result.protocol, result.data_sha256, json.dumps(result.changed, sort_keys=True))
