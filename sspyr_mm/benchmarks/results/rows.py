"""Rows of tables: measured results, grouped by seed, and the results of the paper."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from sspyr_mm.benchmarks.protocols import PROTOCOLS
from sspyr_mm.benchmarks.results.result import Result, fingerprint

KINDS = ("measured", "measured, other data", "measured, other settings", "published")
"""Measured results of other data or settings are not comparable with published ones."""
_SHOWN = 3  # maximum number of options that a row lists; of more, it shows the number and a hash
_ALSO_SHOWN = {protocol.name: protocol.also_shown for protocol in PROTOCOLS}
"""Other metrics that are shown next to the protocol's; means over seeds."""


@dataclass(frozen=True)
class Row:
    """Row of the table: names as in :class:`Result`, one value in percent per seed, one of ``KINDS``, a note."""

    data: str
    protocol: str
    metric: str
    network: str
    values: tuple[float, ...]
    kind: str
    note: str

    @property
    def value(self) -> float:
        """Mean over seeds, in percent."""
        return mean(self.values)

    @property
    def text(self) -> str:
        """The value, with the range of the seeds if there are several."""
        if len(self.values) == 1:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} ({min(self.values):.1f} to {max(self.values):.1f})"


def _published(data: str, protocol: str, metric: str, network: str, value: float, source: str) -> Row:
    return Row(data, protocol, metric, network, (value,), "published", source)


_ASL = ("coco14", "asl", "mAP")
_FCN = ("voc12aug", "fcn_voc", "mIoU")
_ASL_SOURCE = "SS-PRL supplementary, ASL on COCO"
_FCN_SOURCE = "SS-PRL supplementary, FCN on VOC"
_METHODS = {  # method: ASL pre-trained on COCO, ASL pre-trained on ImageNet, FCN pre-trained on COCO
    "MoCo v2": (63.8, 71.1, 57.3),
    "SwAV": (68.3, 73.2, 56.1),
    "BYOL": (62.7, 68.6, 54.1),
    "DenseCL": (68.7, 72.7, 63.2),
    "DetCo": (64.7, 71.0, 47.6),
    "MaskCo": (65.8, 70.8, 59.8),
    "InsLoc": (62.9, 71.8, 56.1),
    "SS-PRL": (69.3, 73.8, 62.6),
}
_ABLATIONS = (  # network, linear mAP on VOC, tables; results that are in both tables are listed once
    ("SS-PRL, scale 0 alone", 79.2, "tables S-C and S-D (K0 300, K1 0)"),
    ("SS-PRL, two scales, shared prototypes", 77.8, "table S-C"),
    ("SS-PRL, two scales", 79.9, "tables S-C and S-D (K0 300, K1 300)"),
    ("SS-PRL, two scales, K0 3000, K1 1500", 77.6, "table S-D"),
    ("SS-PRL, two scales, K0 300, K1 1500", 79.6, "table S-D"),
    ("SS-PRL, two scales, K0 300, K1 150", 79.9, "table S-D"),
)

PUBLISHED = (
    _published(*_ASL, "Random init", 50.0, _ASL_SOURCE),
    *(_published(*_ASL, f"{name} (COCO)", value, _ASL_SOURCE) for name, (value, _, _) in _METHODS.items()),
    *(_published(*_ASL, f"{name} (ImageNet)", value, _ASL_SOURCE) for name, (_, value, _) in _METHODS.items()),
    _published(*_FCN, "Random init", 40.7, _FCN_SOURCE),
    *(_published(*_FCN, f"{name} (COCO)", value, _FCN_SOURCE) for name, (_, _, value) in _METHODS.items()),
    *(
        _published("voc07", "linear", "mAP", name, value, f"SS-PRL supplementary, {tables}")
        for name, value, tables in _ABLATIONS
    ),
)
"""The other tables of the main paper were not available."""


def make_rows(results: Iterable[Result], *, published: bool = True) -> list[Row]:
    """Groups results that differ only in their seed, and adds published results.

    Published results are added only for a protocol and data set with a comparable measured one. Rows are in order of
    appearance of data and protocol; in each, measured before published ones, by network name, random weights last.
    """
    groups: dict[tuple, list[Result]] = {}
    labels: dict[tuple[str, str], set[str]] = {}
    networks: dict[str | None, set[str | None]] = {}
    for result in results:
        labels.setdefault((result.data, result.metric), set()).add(result.data_sha256)
        networks.setdefault(result.checkpoint.get("sha256"), set()).add(result.checkpoint.get("identity"))
        groups.setdefault(_key(result), []).append(result)
    rows = []
    for group in groups.values():
        one = group[0]
        # The same run twice counts once; two values of one seed are both shown.
        runs = sorted(dict.fromkeys((result.seed, result.value) for result in group), key=lambda run: run[0])
        note = _note(
            group,
            [seed for seed, _ in runs],
            name_labels=len(labels[one.data, one.metric]) > 1,
            name_network=len(networks[one.checkpoint.get("sha256")]) > 1,
        )
        values = tuple(value for _, value in runs)
        rows.append(Row(one.data, one.protocol, one.metric, one.network, values, _kind(one), note))
    order = list(dict.fromkeys((row.data, row.protocol) for row in rows))
    rows.sort(key=lambda row: (row.network == "random", row.network, KINDS.index(row.kind)))
    comparable = {(row.data, row.protocol) for row in rows if row.kind == "measured"}
    if published:
        rows += [row for row in PUBLISHED if (row.data, row.protocol) in comparable]
    return sorted(rows, key=lambda row: order.index((row.data, row.protocol)))


def _key(result: Result) -> tuple:
    """Returns a key that is equal for results that differ only in their seed."""
    settings = {k: v for k, v in result.settings.items() if k != "seed"}
    return (
        result.data,
        result.protocol,
        result.metric,
        result.network,
        # A file may hold several networks; results of old versions have no identity.
        result.checkpoint.get("identity", result.checkpoint.get("sha256")),
        result.data_sha256,
        result.versions.get("sspyr_mm"),
        result.as_published,
        # In a file, tuples have become lists.
        json.dumps([settings, result.counts], sort_keys=True),
    )


def _kind(result: Result) -> str:
    if result.as_published:
        return "measured"
    return "measured, other settings" if result.changed else "measured, other data"


def _note(group: Sequence[Result], seeds: Sequence[int], *, name_labels: bool, name_network: bool) -> str:
    """Describes how a measured result differs from others of its name, and adds the other metrics to show."""
    result = group[0]
    parts = [
        f"{name} {mean(one.further[name] for one in group):.1f}"
        for name in _ALSO_SHOWN.get(result.protocol, ())
        if all(isinstance(one.further.get(name), (int, float)) for one in group)  # None: not a number
    ]
    parts += [
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
        f"sha256 {str(result.checkpoint.get('sha256'))[:8]}",
        _images(result),
    ]
    if name_network:
        about = result.checkpoint
        parts += [str(about[key]) for key in ("place", "decoding") if about.get(key)]
    if name_labels:
        parts.append(f"labels {result.data_sha256[:8]}")
    defined = [v for v in result.further.get("AP_per_class", {}).values() if v is not None]
    classes = result.counts.get("classes", 0)
    if "AP_per_class" in result.further and len(defined) < classes:
        parts.append(f"{len(defined)} of {classes} classes")
    return "; ".join([*parts, *(f"{k} {_plain(v)}" for k, v in result.changed.items())])


def _images(result: Result) -> str:
    """Formats the number of training images, and of those used if fewer, and of test images."""
    train = result.counts.get("train", 0)
    used = result.further.get("train_images", train)
    part = f"{used:,} of " if used < train else ""
    return f"{part}{train:,} + {result.counts.get('test', 0):,} images"


def _plain(value: Any) -> str:
    """Formats a setting, a tuple like the list that a file holds."""
    if isinstance(value, Mapping):
        listed = ", ".join(f"{key}={one}" for key, one in value.items())
        return listed if len(value) <= _SHOWN else f"{len(value)}, {fingerprint(value)[:8]}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
