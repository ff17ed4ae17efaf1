"""Report of one or several runs: curves, health, settings and versions, on one page that needs nothing else."""

import base64
import difflib
import io
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import jinja2

from sspyr_mm.files import read_regular, short_names, write_text
from sspyr_mm.health import HEALTH_FILE, describe
from sspyr_mm.reports.view_sheet_hook import VIEWS_FILE

_SKIPPED = {"epoch", "iter", "step", "time", "data_time", "eta", "memory"}
_REPEATED = re.compile(r"health/(\w+/ratio|step/(lr|images_per_s|data_wait))")
"""Curves that HealthHook logs again."""
_ENVIRONMENT = r"^    (Python|PyTorch|TorchVision|OpenCV|MMEngine|GPU [\d,]+|CUDA available|seed): (.+)$"
_FIRST = ("loss", "ratio", "probe")
"""Curves at the top of the page."""
_MAX_BYTES = 1 << 30
_MOST_STEPS, _MOST_VALUE, _MOST_PLOTS = 1 << 53, 1e100, 100
"""Iterations and values that a plot can show, and plots of a page, which take a tenth of a second each."""

Curve = dict[int, float]
"""Value by iteration."""


@dataclass
class _Run:
    """A run as the page shows it."""

    name: str
    curves: dict[str, Curve]
    config: str
    environment: dict[str, str]
    health: dict[str, Any] | None
    atlas: str | None
    views: str | None
    facts: dict[str, str] = field(default_factory=dict)


def write_report(work_dirs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> None:
    """Writes a page on runs.

    Args:
        work_dirs: Work dirs of training.
        out: HTML file.

    Raises:
        ValueError: If a folder holds no log of training, or a damaged one.
    """
    folders = [Path(folder) for folder in work_dirs]
    names = short_names([str(folder) for folder in folders])
    runs = [_read(folder, name, Path(out)) for folder, name in zip(folders, names, strict=True)]
    panels = _panels(runs)
    columns = list(dict.fromkeys(fact for run in runs for fact in run.facts))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "page"), autoescape=True)
    page = environment.get_template("report.html").render(
        title=names[0] if len(runs) == 1 else f"{len(runs)} runs",
        runs=runs,
        columns=columns,
        curves=_draw(dict(itertools.islice(panels.items(), _MOST_PLOTS)), names),
        omitted=list(panels)[_MOST_PLOTS:],
        differences=[_difference(runs[0], run) for run in runs[1:]],
    )
    write_text(out, page)


def _read(folder: Path, name: str, out: Path) -> _Run:
    logs = sorted(folder.glob("*/vis_data/scalars.json"))
    if not logs:
        raise ValueError(
            f"{folder} holds no log of training (TIME/vis_data/scalars.json): give the work dir of a run of "
            "tools/train.py with LocalVisBackend, the default"
        )
    curves: dict[str, Curve] = {}
    for log in logs:  # a resumed run repeats the iterations since its checkpoint
        _add(curves, log)
    if not curves:
        raise ValueError(
            f"{folder} has no logged iteration yet: wait for the first one (default_hooks.logger.interval)"
        )
    texts = [_text(path) for path in (logs[-1].parent / "config.py", *sorted(logs[-1].parents[1].glob("*.log"))[-1:])]
    config, log_text = (*texts, "", "")[:2]
    atlas = folder / "atlas/index.html"
    link = quote(Path(os.path.relpath(atlas, out.parent)).as_posix()) if atlas.exists() else None
    environment = dict(re.findall(_ENVIRONMENT, log_text[:20000], re.MULTILINE))
    sheet = folder / VIEWS_FILE
    views = _embed(read_regular(sheet, max_bytes=_MAX_BYTES), "jpeg") if sheet.exists() else None
    run = _Run(name, curves, config, environment, _health(folder / HEALTH_FILE), link, views)
    run.facts = _facts(curves, run.health)
    return run


def _text(path: Path) -> str:
    return read_regular(path, max_bytes=_MAX_BYTES).decode(errors="replace") if path.exists() else ""


def _add(curves: dict[str, Curve], log: Path) -> None:
    """Adds the values of a log, in place of earlier ones after its first iteration."""
    lines = _text(log).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if abs(step := int(row["step"])) >= _MOST_STEPS:
                raise ValueError(f"step {step:.3g}")
            found = {name: float(value) for name, value in row.items() if isinstance(value, (int, float))}
            rows.append((step, found))
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            if number == len(lines):  # a killed run
                break
            raise ValueError(f"{log}, line {number} is damaged ({error}): remove the line") from error
    first = min((step for step, _ in rows), default=0)
    if rows and first <= min((step for curve in curves.values() for step in curve), default=0):
        curves.clear()  # a new run in the same folder
    for curve in curves.values():
        for step in [step for step in curve if step > first]:
            del curve[step]
    for step, row in rows:
        for name, value in row.items():
            if name not in _SKIPPED:
                curves.setdefault(name, {})[step] = value


def _health(path: Path) -> dict[str, Any] | None:
    """Reads the last table of ``HealthHook``."""
    if not path.exists():
        return None
    try:
        found = json.loads(_text(path))
        lines = [
            {
                "name": name,
                "verdict": str(line["verdict"]),
                "measures": describe(line["measures"]),
                "advice": line["advice"],
            }
            for name, line in found["lines"].items()
        ]
        if not lines:
            raise ValueError("it has no line")
        return {"iteration": found["iteration"], "lines": lines}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it") from error


def _facts(curves: Mapping[str, Curve], health: Mapping[str, Any] | None) -> dict[str, str]:
    """Returns the columns of the table of runs."""
    last = {name: curve[max(curve)] for name, curve in curves.items() if curve}
    facts = {"iterations": str(max((max(curve) for curve in curves.values() if curve), default=0))}
    facts |= {name: f"{last[name]:.4g}" for name in ("loss", "lr") if name in last}
    facts |= {name: f"{value:.1f}" for name, value in last.items() if name.startswith("probe/")}
    for name, text in (("images_per_s", "images/s (median)"), ("data_wait", "waits for data, % (median)")):
        if curves.get(name):
            facts[text] = f"{median(curves[name].values()):.0f}"
    if health:
        bad = [f"{line['name']}: {line['verdict']}" for line in health["lines"] if "," in line["verdict"]]
        facts["health"] = "; ".join(bad) or health["lines"][0]["verdict"]
    return facts


def _panel(name: str) -> str:
    """Returns the plot that a curve belongs to."""
    parts = name.split("/")
    if parts[0] == "health" and len(parts) == 3:
        return parts[2]
    return next((kind for kind in _FIRST if name.startswith(kind) or f"_{kind}_" in name), name)


def _panels(runs: Sequence[_Run]) -> dict[str, list[tuple[int, str, Curve]]]:
    """Returns the curves of each plot, with the number of their run, the most interesting plots first."""
    panels: dict[str, list[tuple[int, str, Curve]]] = {}
    for number, run in enumerate(runs):
        for name, curve in run.curves.items():
            if curve and not _REPEATED.fullmatch(name):
                panels.setdefault(_panel(name), []).append((number, name, curve))
    order = sorted(panels, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    return {name: panels[name] for name in order}


def _draw(panels: Mapping[str, list[tuple[int, str, Curve]]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Draws a plot per measure, with all runs and groups in it: name and address of the image."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # SVGs with text, not outlines: a tenth of the size. Names are no formulas.
    with plt.rc_context({"svg.fonttype": "none", "text.parse_math": False}):
        return [(panel, _plot(plt, panel, curves[:_MOST_PLOTS], names)) for panel, curves in panels.items()]


def _plot(plt: Any, panel: str, curves: Sequence[tuple[int, str, Curve]], names: Sequence[str]) -> str:
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    lines = list(dict.fromkeys(name for _, name, _ in curves))
    for number, name, curve in curves:
        steps = sorted(step for step, value in curve.items() if not abs(value) > _MOST_VALUE)
        colour, style = (number, lines.index(name)) if len(names) > 1 else (lines.index(name), 0)
        label = f"{names[number]} {name}" if len(names) > 1 else name
        style_name = ("-", "--", ":", "-.")[style % 4]
        marker = "o" if len(steps) == 1 else None
        values = [curve[step] for step in steps]
        axis.plot(steps, values, style_name, color=f"C{colour % 10}", label=label, lw=1.2, marker=marker)
    axis.set_title(panel, fontsize=9)
    axis.set_xlabel("iteration", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return _embed(buffer.getvalue(), "svg+xml")


def _embed(image: bytes, kind: str) -> str:
    """Returns the address of an image inside of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _difference(first: _Run, other: _Run) -> str:
    """Returns the lines in which the configs of two runs differ."""
    lines = difflib.unified_diff(
        first.config.splitlines(), other.config.splitlines(), first.name, other.name, lineterm="", n=1
    )
    return "\n".join(lines) or f"{first.name} and {other.name} have the same settings"
