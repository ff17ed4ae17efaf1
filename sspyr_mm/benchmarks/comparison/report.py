"""Tables and a plot of a comparison."""

import csv
import io
import os
from collections.abc import Mapping

from sspyr_mm.benchmarks.comparison.compare import Interval, Measured, verdict
from sspyr_mm.benchmarks.results.table import markdown_table, save_figure

Results = Mapping[str, Mapping[int, Measured]]
"""Results by percentage of the labels, by network; the first network is compared with the others."""


def to_markdown(results: Results, sizes: Mapping[int, int], num_test: int, metric: str) -> str:
    """Formats a table of results, and one of differences of the first network to each other one.

    ``sizes`` are the numbers of training images by percentage.
    """
    draws = {percent: len(one.values) for percent, one in next(iter(results.values())).items()}
    shares = [f"{p} % ({size} images, {draws[p]} draw{'s' * (draws[p] > 1)})" for p, size in sizes.items()]
    rows = [[name, *(_text(found[percent].interval) for percent in sizes)] for name, found in results.items()]
    text = markdown_table([metric, *shares], rows)
    first, *others = results
    if others:
        rows = []
        for other in others:
            differences = [results[first][percent].minus(results[other][percent]) for percent in sizes]
            rows.append([other, *(f"{verdict(one, num_test)}: {_text(one, sign=True)}" for one in differences)])
        text += "\n" + markdown_table([f"{first} compared with", *shares], rows)
    return text


def _text(interval: Interval, *, sign: bool = False) -> str:
    form = "+.1f" if sign else ".1f"
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def to_csv(results: Results, sizes: Mapping[int, int], num_test: int, metric: str) -> str:
    """Formats one row per network and percentage: value, interval, and difference of the first network to this one."""
    text = io.StringIO()
    writer = csv.writer(text)
    difference_columns = ("first_minus_this", "difference_low", "difference_high", "verdict")
    writer.writerow(("network", "percent", "images", "metric", "value", "low", "high", *difference_columns))
    first = next(iter(results))
    for name, found in results.items():
        for percent, size in sizes.items():
            one = found[percent].interval
            row = [name, percent, size, metric, one.value, one.low, one.high]
            if name != first:
                difference = results[first][percent].minus(found[percent])
                row += [difference.value, difference.low, difference.high, verdict(difference, num_test)]
            writer.writerow(row)
    return text.getvalue()


def plot(results: Results, sizes: Mapping[int, int], metric: str, path: str | os.PathLike) -> None:
    """Draws a line per network over the number of training images, with 95 % intervals.

    Raises ValueError if matplotlib does not know the file extension.
    """
    from matplotlib.figure import Figure

    figure = Figure((7, 4.5), layout="constrained")
    axis = figure.subplots()
    places = list(sizes.values())
    for number, (name, found) in enumerate(results.items()):
        intervals = [found[percent].interval for percent in sizes]
        width = 2 if number == 0 else 1
        axis.plot(places, [one.value for one in intervals], "o-", label=name, color=f"C{number}", linewidth=width)
        axis.fill_between(
            places, [one.low for one in intervals], [one.high for one in intervals], color=f"C{number}", alpha=0.15
        )
    axis.set_xscale("log")
    axis.set_xticks(places, [f"{percent} %\n{size}" for percent, size in sizes.items()])
    axis.minorticks_off()
    axis.set_xlabel("labelled training images", fontsize=9)
    axis.set_ylabel(f"{metric}, percent", fontsize=9)
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    save_figure(figure, path)
