"""Tables of the paper with published and measured results in adjacent columns: Markdown, CSV and a plot."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t as student_t

from sspyr_mm.benchmarks.results.table import save_figure


@dataclass(frozen=True)
class PaperRow:
    """Results of one system, in percent."""

    system: str
    published: float
    values: Mapping[int, float]  # measured, by seed

    @property
    def measured(self) -> float | None:
        """Mean over seeds, None without a result."""
        return mean(self.values.values()) if self.values else None

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval of the mean by Student's t, None for fewer than two seeds."""
        num = len(self.values)
        return float(student_t.ppf(0.975, num - 1)) * stdev(self.values.values()) / num**0.5 if num > 1 else None


def to_markdown(title: str, rows: Sequence[PaperRow]) -> str:
    """Formats the table with one decimal."""
    lines = [title, "", "| system | published | measured | by seed |", "|---|---|---|---|"]
    for row in rows:
        measured = "-" if row.measured is None else f"{row.measured:.1f}"
        measured += f" ± {row.half:.1f}" if row.half is not None else ""
        seeds = ", ".join(f"{seed}: {value:.1f}" for seed, value in row.values.items())
        lines.append(f"| {row.system} | {row.published:.1f} | {measured} | {seeds} |")
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[PaperRow]) -> str:
    """Formats the table with all digits: ``half`` is half the width of the 95 % interval."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("system", "published", "measured", "half", "seeds", "values"))
    for row in rows:
        by_seed = (" ".join(map(str, part)) for part in (row.values, row.values.values()))
        writer.writerow((row.system, row.published, row.measured, row.half, *by_seed))
    return text.getvalue()


def plot(title: str, rows: Sequence[PaperRow], path: str | os.PathLike) -> None:
    """Draws published and measured results in adjacent panels, with 95 % intervals and a mark per seed.

    The panels have axes of their own, since results of other sizes have another range. Raises ValueError if matplotlib
    does not know the file extension.
    """
    from matplotlib.figure import Figure

    figure = Figure((9, 0.35 * len(rows) + 1.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(rows):
        left.plot(row.published, place, "o", color="0.4")
        right.plot(list(row.values.values()), [place] * len(row.values), "|", color="tab:blue", alpha=0.6)
        if row.measured is not None:
            right.errorbar(row.measured, place, xerr=row.half, fmt="o", color="tab:blue", capsize=3)
    left.set_yticks(range(len(rows)), [row.system for row in rows])
    left.invert_yaxis()  # shared by both panels
    for axis, name in ((left, "published"), (right, "measured, 95 % interval of the mean")):
        axis.set_xlabel(f"{name}, percent", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=9)
    save_figure(figure, path)
