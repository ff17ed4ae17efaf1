"""Results of several networks as one table: Markdown, CSV, a plot. Measured and published figures are told apart."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from sspyr_mm.benchmarks.published import PUBLISHED
from sspyr_mm.benchmarks.results import Result
from sspyr_mm.files import whole_file


@dataclass(frozen=True)
class Row:
    """One figure of the table.

    Args:
        data: Name of the data.
        protocol: Name of the protocol.
        metric: What the values are.
        network: What was measured.
        values: In percent; one per seed.
        kind: ``measured``, ``measured, other settings`` (not to be compared with published figures) or ``published``.
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

    Published figures are added only where one was measured with the same settings on the same data: beside others they
    would be compared.

    Args:
        results: Any.
        published: Whether to add published figures.

    Returns:
        Rows, by data and protocol in order of appearance; in each, measured ones first.
    """
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        settings = {k: v for k, v in result.settings.items() if k != "seed"}
        key = (
            result.data,
            result.protocol,
            result.metric,
            result.network,
            result.checkpoint.get("sha256"),
            result.data_sha256,
            result.versions.get("sspyr_mm"),
            result.as_published,
            repr(sorted(settings.items())),
            repr(sorted(result.counts.items())),
        )
        groups.setdefault(key, []).append(result)
    rows = []
    for (data, protocol, metric, network, *_), group in groups.items():
        # The same run twice counts once; two values of one seed are both shown.
        runs = list(dict.fromkeys((result.seed, result.value) for result in group))
        kind = "measured" if group[0].as_published else "measured, other settings"
        values = tuple(value for _, value in runs)
        note = _note(group[0], [seed for seed, _ in runs])
        rows.append(Row(data, protocol, metric, network, values, kind, note))
    order = list(dict.fromkeys((row.data, row.protocol) for row in rows))
    comparable = {(row.data, row.protocol) for row in rows if row.kind == "measured"}
    if published:
        rows += [
            Row(f.data, f.protocol, f.metric, f.network, (f.value,), "published", f.source)
            for f in PUBLISHED
            if (f.data, f.protocol) in comparable
        ]
    return sorted(
        rows, key=lambda row: (order.index((row.data, row.protocol)), row.kind == "published")
    )


def _note(result: Result, seeds: Sequence[int]) -> str:
    """What tells a measured figure from others of its name."""
    parts = [
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
        f"sha256 {str(result.checkpoint.get('sha256'))[:8]}",
        f"{result.counts.get('train', 0):,} + {result.counts.get('test', 0):,} images",
    ]
    changed = result.settings.get("changed") or {}
    return "; ".join([*parts, *(f"{name} {value}" for name, value in changed.items())])


_COLUMNS = ("data", "protocol", "network", "metric", "value", "kind", "note")


def _cells(row: Row) -> tuple[str, ...]:
    return (row.data, row.protocol, row.network, row.metric, row.text, row.kind, row.note)


def to_markdown(rows: Sequence[Row]) -> str:
    """A table for people, with aligned columns."""
    lines = [_COLUMNS, *(tuple(c.replace("|", "\\|") for c in _cells(row)) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    padded = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
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
    """Draws a panel per data and protocol: a bar per network, a mark per seed, published figures hatched.

    Args:
        rows: The table.
        path: Image to write, of any format matplotlib knows.

    Raises:
        ValueError: If there is nothing to draw, or the file's ending is not known.
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row.data, row.protocol, row.metric), []).append(row)
    if not panels:
        raise ValueError("No result to plot")
    heights = [len(panel) + 1 for panel in panels.values()]
    size = (8, 0.35 * sum(heights) + 0.6 * len(panels))
    figure = Figure(size, layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for axis, ((data, protocol, metric), panel) in zip(axes[:, 0], panels.items(), strict=True):
        for place, row in enumerate(reversed(panel)):
            published = row.kind == "published"
            colour = "0.85" if published else "tab:blue" if row.kind == "measured" else "tab:cyan"
            axis.barh(
                place, row.value, color=colour, hatch="//" if published else None, edgecolor="0.6"
            )
            if len(row.values) > 1:
                axis.plot(row.values, [place] * len(row.values), "k|")
            axis.text(row.value, place, f" {row.text}", va="center", fontsize=8)
        axis.set_yticks(
            range(len(panel)), [f"{row.network} ({row.kind})" for row in reversed(panel)]
        )
        axis.tick_params(labelsize=8)
        axis.set_title(f"{data}, {protocol}: {metric} in percent", fontsize=9, loc="left")
        axis.set_xlim(0, 1.25 * max(row.value for row in panel))
        axis.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150, format=Path(path).suffix.removeprefix("."))
