"""Compares the effect of precision, layout and compiling on the loss with the effect of another seed.

    python tools/speed/loss_curves.py --data-root DIR --out OUT [--config CONFIG] [--cfg-options KEY=VALUE ...]

Trains the config once per seed and, with the first seed, once per setting; each run is a separate process of
tools/train.py. The distance of two curves is their mean absolute difference over all lines of the log. A setting passes
if its distance from the first seed's curve is at most the largest distance between two seeds. Writes
OUT/loss_curves.json and loss_curves.svg; finished runs are kept in OUT/runs and not repeated. The exit status is 1 if a
setting does not pass.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from outputs import require_writable

from sspyr_mm.files import whole_file, write_json
from sspyr_mm.speed.bench import describe_machine

ROOT = Path(__file__).parents[2]
INTERVAL = 5
"""Steps whose mean loss is a point of a curve; the last point of an epoch may have fewer."""
PLAIN = ("model.channels_last=False", "optim_wrapper.type=OptimWrapper")
SETTINGS = {
    "bfloat16": ("optim_wrapper.type=AutocastOptimWrapper",),
    "channels_last": ("model.channels_last=True",),
    "compiled": ("model.compile_backbone=True", "model.data_preprocessor.compiled=True"),
    "recompute": ("model.recompute=scale",),
}
ON_GPU = {"float16": ("optim_wrapper.type=AmpOptimWrapper", "optim_wrapper.dtype=float16")}
KNOWN = {**SETTINGS, **ON_GPU}

Curve = list[float]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Run:
    """One training; ``options`` are settings of the config, ``KEY=VALUE``."""

    name: str
    options: tuple[str, ...]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [*KNOWN] if DEVICE.type == "cuda" else [*SETTINGS]
    parser.add_argument("--data-root", required=True, metavar="DIR", help="images to train on")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path)
    parser.add_argument("--config", default=str(ROOT / "configs/ssprl/r18_toy_scenes_40e.py"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], metavar="N")
    parser.add_argument("--settings", nargs="+", choices=KNOWN, default=usual)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    if not Path(args.config).is_file():
        parser.error(f"--config {args.config}: no such file; give a config of configs/ssprl")
    if len(set(args.seeds)) < 2:
        parser.error(f"--seeds {args.seeds}: give at least two different seeds to compare with")
    require_writable(parser, "--out", args.out / "loss_curves.json")
    return args


def list_runs(args: argparse.Namespace) -> list[Run]:
    """Lists a run per seed, then a run per setting."""
    common = (*PLAIN, *args.cfg_options)
    seeds = [Run(f"seed {seed}", (*common, f"randomness.seed={seed}")) for seed in args.seeds]
    return seeds + [Run(name, seeds[0].options + KNOWN[name]) for name in args.settings]


def train(run: Run, config: str, data_root: str, folder: Path) -> dict[str, list]:
    """Trains, or reads the result of an earlier call with the same config, images, versions and device.

    Returns lists of ``step`` and ``loss``; raises SystemExit if training fails.
    """
    asked = {
        "config": Config.fromfile(config).pretty_text,
        "data_root": str(Path(data_root).resolve()),
        "options": list(run.options),
        **describe_machine(DEVICE),
    }
    done = folder / "done.json"
    if done.is_file() and (found := json.loads(done.read_text()))["asked"] == asked:
        return found["curve"]
    folder.mkdir(parents=True, exist_ok=True)
    logging = (
        *(f"default_hooks.logger.interval={INTERVAL}", f"log_processor.window_size={INTERVAL}"),
        "default_hooks.checkpoint.interval=-1",
    )
    command = [sys.executable, str(ROOT / "tools/train.py"), config, "--data-root", data_root]
    with open(folder / "train.log", "w") as log:
        status = subprocess.run(
            [*command, "--work-dir", str(folder), "--cfg-options", *logging, *run.options],
            stdout=log,
            stderr=subprocess.STDOUT,
        ).returncode
    if status:
        raise SystemExit(f"loss_curves: {run.name} ended with status {status}, see {log.name}")
    scalars = max(folder.glob("*/vis_data/scalars.json"))  # folders are named by their time
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    curve = {name: [line[name] for line in lines if "loss" in line] for name in ("step", "loss")}
    write_json(done, {"asked": asked, "curve": curve})
    return curve


def distance(one: Curve, other: Curve) -> float:
    """Returns the mean absolute difference of two curves; NaN if a loss is NaN."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def compare(seeds: Sequence[Curve], settings: Mapping[str, Curve]) -> dict[str, object]:
    """Returns distances between seeds, distances of settings from the first seed, and which settings pass."""
    apart = [distance(one, other) for one, other in itertools.combinations(seeds, 2)]
    changed = {name: distance(seeds[0], curve) for name, curve in settings.items()}
    return {
        "seeds_apart": apart,
        "settings_from_first_seed": changed,
        "passed": {name: value <= max(apart) for name, value in changed.items()},
    }


def draw(curves: Mapping[str, Curve], steps: Sequence[int], num_seeds: int, path: Path) -> None:
    """Draws the curves and, below them, their differences from the first; seeds are grey."""
    figure = Figure((8, 6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    first = next(iter(curves.values()))
    for index, (name, curve) in enumerate(curves.items()):
        style = {"color": "0.6", "lw": 3} if index < num_seeds else {"lw": 1.2}
        (line,) = upper.plot(steps, curve, label=name, **style)
        difference = [b - a for a, b in zip(first, curve, strict=True)]
        lower.plot(steps, difference, **{**style, "color": line.get_color()})
    upper.set_ylabel("loss")
    lower.set(xlabel="step", ylabel=f"difference from {next(iter(curves))}")
    upper.legend(frameon=False, ncols=2)
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})


def main() -> int:
    args = parse_args()
    runs, curves, steps = list_runs(args), {}, []
    for run in runs:
        folder = args.out / "runs" / run.name.replace(" ", "_")
        trained = train(run, args.config, args.data_root, folder)
        curves[run.name], steps = trained["loss"], trained["step"]
        print(f"{run.name:16} last loss {curves[run.name][-1]:.4f}", flush=True)
    seeds, settings = list(curves)[: len(args.seeds)], list(curves)[len(args.seeds) :]
    found = compare([curves[n] for n in seeds], {n: curves[n] for n in settings})
    draw(curves, steps, len(seeds), args.out / "loss_curves.svg")
    what = {
        "config": Path(args.config).stem,
        "options": {run.name: run.options for run in runs},
        **describe_machine(DEVICE),
        "steps": steps,
    }
    write_json(args.out / "loss_curves.json", {**found, **what, "curves": curves})
    print("seeds are apart by", ", ".join(f"{value:.4f}" for value in found["seeds_apart"]))
    for name, value in found["settings_from_first_seed"].items():
        print(f"{name:16} {value:.4f} {'' if found['passed'][name] else 'MORE THAN A SEED'}")
    return 0 if all(found["passed"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
