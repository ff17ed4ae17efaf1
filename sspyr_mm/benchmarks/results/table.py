"""Tables of measured and published results: Markdown, CSV and a plot."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from sspyr_mm.benchmarks.protocols import PROTOCOLS
from sspyr_mm.benchmarks.results.published import PUBLISHED
from sspyr_mm.benchmarks.results.result import Result, fingerprint
from sspyr_mm.files import whole_file

_SHOWN = 3
"""Maximum number of options that a row lists; of more, it shows the number and a hash."""
_KINDS = ("measured", "measured, other data", "measured, other settings", "published")
"""Measured results of other data or settings are not comparable with published ones."""
_COLOURS = dict(zip(_KINDS, ("tab:blue", "tab:green", "tab:cyan", "0.85"), strict=True))
_COLUMNS = ("data", "protocol", "network", "metric", "value", "kind", "note")
_ALSO_SHOWN = {protocol.name: protocol.also_shown for protocol in PROTOCOLS}
"""Other metrics that are shown next to the protocol's; means over seeds."""


@dataclass(frozen=True)
class Row:
    """Row of the table: names as in :class:`Result`, one value in percent per seed, one of ``_KINDS``, a note."""

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


def make_rows(results: Iterable[Result], *, published: bool = True) -> list[Row]:
    """Groups results that differ only in their seed, and adds published results.

    Published results are added only for a protocol and data set with a comparable measured one.

    Returns:
        Rows, by data and protocol in order of appearance; in each, measured before published ones, by network name,
        with random weights last.
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
    rows.sort(key=lambda row: (row.network == "random", row.network, _KINDS.index(row.kind)))
    comparable = {(row.data, row.protocol) for row in rows if row.kind == "measured"}
    if published:
        rows += [
            Row(f.data, f.protocol, f.metric, f.network, (f.value,), "published", f.source)
            for f in PUBLISHED
            if (f.data, f.protocol) in comparable
        ]
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
    return "measured, other settings" if _changed(result) else "measured, other data"


def _changed(result: Result) -> Mapping[str, Any]:
    return result.settings.get("changed") or {}


def _note(group: Sequence[Result], seeds: Sequence[int], *, name_labels: bool, name_network: bool) -> str:
    """Describes how a measured result differs from others of its name, and adds the other metrics to show."""
    result = group[0]
    parts = [
        f"{name} {mean(one.further[name] for one in group):.1f}"
        for name in _ALSO_SHOWN.get(result.protocol, ())
        if all(name in one.further for one in group)
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
    return "; ".join([*parts, *(f"{k} {_plain(v)}" for k, v in _changed(result).items())])


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


def to_markdown(rows: Sequence[Row]) -> str:
    """Formats a Markdown table with aligned columns."""
    lines: list[tuple[str, ...]] = [_COLUMNS]
    for row in rows:
        cells = (row.data, row.protocol, row.network, row.metric, row.text, row.kind, row.note)
        lines.append(tuple(cell.replace("|", "\\|") for cell in cells))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = " | ".join("-" * width for width in widths)
    return "".join(f"| {line} |\n" for line in (padded[0], rule, *padded[1:]))


def to_csv(rows: Sequence[Row]) -> str:
    """Formats a CSV table with all digits: ``value`` is the mean over seeds, ``values`` lists each."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((*_COLUMNS, "values"))
    for row in rows:
        writer.writerow([*(getattr(row, name) for name in _COLUMNS), " ".join(map(str, row.values))])
    return text.getvalue()


def plot(rows: Sequence[Row], path: str | os.PathLike) -> None:
    """Draws a panel per data set and protocol, with a bar per network and a mark per seed.

    Raises:
        ValueError: If there are no rows, or matplotlib does not know the file extension.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row.data, row.protocol, row.metric), []).append(row)
    if not panels:
        raise ValueError("No result to plot")
    heights = [len(panel) + 1 for panel in panels.values()]
    size = (8, 0.35 * sum(heights) + 0.6 * len(panels) + 0.3)
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for axis, ((data, protocol, metric), panel) in zip(axes[:, 0], panels.items(), strict=True):
        for place, row in enumerate(reversed(panel)):
            axis.barh(place, row.value, **_style(row.kind))
            if len(row.values) > 1:
                axis.plot(row.values, [place] * len(row.values), "k|")
            axis.text(row.value, place, f" {row.text}", va="center", fontsize=8)
        axis.set_yticks(range(len(panel)), [row.network for row in reversed(panel)])
        axis.tick_params(labelsize=8)
        axis.set_title(f"{data}, {protocol}: {metric} in percent", fontsize=9, loc="left")
        axis.set_xlim(0, 1.25 * max(1.0, *(row.value for row in panel)))
        axis.spines[["top", "right"]].set_visible(False)
    kinds = [kind for kind in _KINDS if any(row.kind == kind for row in rows)]
    patches = [Patch(**_style(kind)) for kind in kinds]
    figure.legend(patches, kinds, loc="outside lower center", ncols=len(kinds), fontsize=8, frameon=False)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150, format=Path(path).suffix.removeprefix("."))


def _style(kind: str) -> dict[str, Any]:
    """Returns the style of a bar; published results are also hatched, for prints without colours."""
    return {"facecolor": _COLOURS[kind], "hatch": "//" if kind == "published" else None, "edgecolor": "0.6"}
