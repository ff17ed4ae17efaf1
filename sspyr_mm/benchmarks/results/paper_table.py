"""Tables of the paper with published and measured results in adjacent columns: Markdown, CSV and a plot."""

import csv
import io
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t as student_t

from sspyr_mm.benchmarks.results.table import markdown_table, save_figure

_MARK = "\N{DAGGER}"
"""Reference to a footnote."""


@dataclass(frozen=True)
class PaperRow:
    """Results of one system, in percent."""

    system: str
    published: float
    values: Mapping[int, float]  # measured, by seed
    note: str = ""  # on the measured result

    @property
    def measured(self) -> float | None:
        """Mean over seeds, None without a result."""
        return mean(self.values.values()) if self.values else None

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval of the mean by Student's t, None for fewer than two seeds."""
        num = len(self.values)
        return float(student_t.ppf(0.975, num - 1)) * stdev(self.values.values()) / num**0.5 if num > 1 else None


@dataclass(frozen=True)
class PaperTable:
    """Published and measured results of several systems."""

    title: str
    published_as: str  # metric and data of the published results
    measured_as: str  # metric and data of the measured results
    rows: tuple[PaperRow, ...]

    @property
    def notes(self) -> list[str]:
        """Footnotes, each with its systems."""
        notes = dict.fromkeys(row.note for row in self.rows if row.note)
        return [f"{_MARK} {', '.join(r.system for r in self.rows if r.note == n)}, measured: {n}" for n in notes]


def to_markdown(table: PaperTable) -> str:
    """Formats the table with one decimal."""
    cells = []
    for row in table.rows:
        measured = "-" if row.measured is None else f"{row.measured:.1f}"
        measured += f" ± {row.half:.1f}" if row.half is not None else ""
        measured += f" {_MARK}" * bool(row.note)
        seeds = ", ".join(f"{seed}: {value:.1f}" for seed, value in row.values.items())
        cells.append((row.system, f"{row.published:.1f}", measured, seeds))
    above = f"{table.title}. Published: {table.published_as}. In percent; ±: 95 % interval of the mean (Student's t)."
    rows = markdown_table(("system", "published", "measured", "by seed"), cells)
    return "\n".join([f"{above}\n", rows, *(f"{note}\n" for note in table.notes)])


def to_csv(table: PaperTable) -> str:
    """Formats the table with all digits; ``ci95_half_width`` is the number after ± in the Markdown table."""
    text = io.StringIO()
    writer = csv.writer(text)
    columns = ("system", "published", "published_as", "measured", "measured_as", "ci95_half_width", "seeds", "values")
    writer.writerow((*columns, "note"))
    for row in table.rows:
        by_seed = (" ".join(map(str, part)) for part in (row.values, row.values.values()))
        shown = (row.published, table.published_as, row.measured, table.measured_as, row.half)
        writer.writerow((row.system, *shown, *by_seed, row.note))
    return text.getvalue()


def plot(table: PaperTable, path: str | os.PathLike) -> None:
    """Draws published and measured results in adjacent panels, with 95 % intervals and a mark per seed.

    The panels have axes of their own, since results of other sizes have another range. Raises ValueError if matplotlib
    does not know the file extension.
    """
    from matplotlib.figure import Figure

    figure = Figure((9, 0.35 * len(table.rows) + 1.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(table.rows):
        left.plot(row.published, place, "o", color="0.4")
        right.plot(list(row.values.values()), [place] * len(row.values), "|", color="tab:blue", alpha=0.6)
        if row.measured is not None:
            right.errorbar(row.measured, place, xerr=row.half, fmt="o", color="tab:blue", capsize=3)
    left.set_yticks(range(len(table.rows)), [row.system + f" {_MARK}" * bool(row.note) for row in table.rows])
    left.invert_yaxis()  # shared by both panels
    names = f"published: {table.published_as}, %", f"measured: {table.measured_as}, %; bars: 95 % interval of the mean"
    for axis, name in zip((left, right), names, strict=True):
        axis.set_xlabel(textwrap.fill(name, 60), fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(textwrap.fill(table.title, 120), fontsize=9)
    if table.notes:
        figure.supxlabel("\n".join(table.notes), fontsize=8)
    save_figure(figure, path)
