"""Results of several networks as one table: Markdown, CSV, a plot. Measured and published figures are told apart."""

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

__all__ = ["Row", "make_rows", "plot", "to_csv", "to_markdown"]


@dataclass(frozen=True)
class Row:
    """One figure of the table.

    Args:
        data: Name of the data.
        protocol: Name of the protocol.
        metric: What the values are.
        network: What was measured.
        values: In percent; one per seed.
        kind: ``measured``; ``measured, other data`` or ``measured, other settings``, which are not to be compared with
            published figures; or ``published``.
        note: Where it is from, or what is to be known.
    """

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
    """Groups results by what was measured how, seeds together, and adds published figures of the same protocols.

    Published figures are added only where one was measured with the same settings on the same data: others are not
    comparable.

    Args:
        results: Any.
        published: Whether to add published figures.

    Returns:
        Rows, by data and protocol in order of appearance. In each, measured ones come first, by network's name;
        random weights are the last of them.
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
        # The same run twice counts once; two values of one seed are both shown.
        runs = dict.fromkeys((result.seed, result.value) for result in group)
        by_seed = sorted(runs, key=lambda run: run[0])
        one = group[0]
        note = _note(
            group,
            [seed for seed, _ in by_seed],
            name_labels=len(labels[one.data, one.metric]) > 1,
            name_network=len(networks[one.checkpoint.get("sha256")]) > 1,
        )
        values = tuple(value for _, value in by_seed)
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
    """Equal for results that differ in their seed alone."""
    settings = {k: v for k, v in result.settings.items() if k != "seed"}
    return (
        result.data,
        result.protocol,
        result.metric,
        result.network,
        # The hash of a file is that of all networks in it; results of old versions have no identity.
        result.checkpoint.get("identity", result.checkpoint.get("sha256")),
        result.data_sha256,
        result.versions.get("sspyr_mm"),
        result.as_published,
        # As in a file, where a tuple has become a list.
        json.dumps([settings, result.counts], sort_keys=True),
    )


def _kind(result: Result) -> str:
    """Whether a measured figure can be compared with published ones, and why not."""
    if result.as_published:
        return "measured"
    return "measured, other settings" if _changed(result) else "measured, other data"


def _changed(result: Result) -> Mapping[str, Any]:
    return result.settings.get("changed") or {}


_ALSO_SHOWN = {protocol.name: protocol.also_shown for protocol in PROTOCOLS}
"""Further figures that are expected next to the metric; means over seeds."""


def _note(group: Sequence[Result], seeds: Sequence[int], *, name_labels: bool, name_network: bool) -> str:
    """What tells a measured figure from others of its name, and the figures expected next to it."""
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
    """Training and test images; where a protocol learns from a part of the former, how many."""
    train = result.counts.get("train", 0)
    used = result.further.get("train_images", train)
    part = f"{used:,} of " if used < train else ""
    return f"{part}{train:,} + {result.counts.get('test', 0):,} images"


def _plain(value: Any) -> str:
    """The same text for the tuple that was measured and the list that was read."""
    if isinstance(value, Mapping):
        listed = ", ".join(f"{key}={one}" for key, one in value.items())
        return listed if len(value) <= _SHOWN else f"{len(value)}, {fingerprint(value)[:8]}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


_SHOWN = 3
"""Options that a row lists; of more it has the number and a hash. The file has them all."""
_KINDS = ("measured", "measured, other data", "measured, other settings", "published")
_COLOURS = dict(zip(_KINDS, ("tab:blue", "tab:green", "tab:cyan", "0.85"), strict=True))
_COLUMNS = ("data", "protocol", "network", "metric", "value", "kind", "note")


def _cells(row: Row) -> tuple[str, ...]:
    return (row.data, row.protocol, row.network, row.metric, row.text, row.kind, row.note)


def to_markdown(rows: Sequence[Row]) -> str:
    """A table for people, with aligned columns."""
    lines = [_COLUMNS, *(tuple(c.replace("|", "\\|") for c in _cells(row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    padded = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    rule = " | ".join("-" * width for width in widths)
    return "".join(f"| {line} |\n" for line in (padded[0], rule, *padded[1:]))


def to_csv(rows: Sequence[Row]) -> str:
    """A table for programs; ``value`` is the mean, ``values`` are the seeds'."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((*_COLUMNS, "values"))
    for row in rows:
        cells = list(_cells(row))
        cells[4] = repr(row.value)
        writer.writerow((*cells, " ".join(repr(value) for value in row.values)))
    return text.getvalue()


def plot(rows: Sequence[Row], path: str | os.PathLike) -> None:
    """Draws a panel per data and protocol: a bar per network in the colour of its kind, a mark per seed.

    Args:
        rows: The table.
        path: Image to write, of any format matplotlib knows.

    Raises:
        ValueError: If there is nothing to draw, or the file's ending is not known.
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
    figure.legend(
        [Patch(**_style(kind)) for kind in kinds],
        kinds,
        loc="outside lower center",
        ncols=len(kinds),
        fontsize=8,
        frameon=False,
    )
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150, format=Path(path).suffix.removeprefix("."))


def _style(kind: str) -> dict[str, Any]:
    """Of a bar; published ones are hatched, which is seen without colours."""
    return {"facecolor": _COLOURS[kind], "hatch": "//" if kind == "published" else None, "edgecolor": "0.6"}
