"""Tables of rows: Markdown, CSV and a plot."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sspyr_mm.benchmarks.results.rows import KINDS, Row
from sspyr_mm.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = dict(zip(KINDS, ("tab:blue", "tab:green", "tab:cyan", "0.85"), strict=True))
_COLUMNS = ("data", "protocol", "network", "metric", "value", "kind", "note")


def to_markdown(rows: Sequence[Row]) -> str:
    """Formats rows as a Markdown table."""
    shown = [(row.data, row.protocol, row.network, row.metric, row.text, row.kind, row.note) for row in rows]
    return markdown_table(_COLUMNS, shown)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats cells as a Markdown table with aligned columns."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


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

    Raises ValueError if there are no rows, or matplotlib does not know the file extension.
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
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    patches = [Patch(**_style(kind)) for kind in kinds]
    figure.legend(patches, kinds, loc="outside lower center", ncols=len(kinds), fontsize=8, frameon=False)
    save_figure(figure, path)


def save_figure(figure: "Figure", path: str | os.PathLike) -> None:
    """Writes a figure atomically; raises ValueError if matplotlib does not know the file extension."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150, format=Path(path).suffix.removeprefix("."))


def _style(kind: str) -> dict[str, Any]:
    """Returns the style of a bar; published results are also hatched, for prints without colours."""
    return {"facecolor": _COLOURS[kind], "hatch": "//" if kind == "published" else None, "edgecolor": "0.6"}
