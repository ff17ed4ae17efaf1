"""How the time of a step grows with scales, images and prototypes: ``python tools/benchmarks/growth.py --out OUT``.

Forward and backward pass of the config's network on patches that are on the device already. What is grown is timed in
turn, so that a busy machine slows all sizes alike; a straight line is fitted to the medians. Leaves OUT/growth.json and
growth.svg.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.cli.arguments import require_writable
from sspyr_mm.files import configs_dir, whole_file, write_json
from sspyr_mm.speed.bench import device_name, versions
from sspyr_mm.speed.growth import SCALES, build_grown, grown_pyramid, pixels, step_on_noise
from sspyr_mm.speed.timing import wall_ms

NUM_SCALES = 3
"""The paper's, where something else grows."""


def parse_args() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    folder = configs_dir() / "ssprl"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, metavar="DIR", type=Path)
    parser.add_argument(
        "--config", default=str(folder / f"{'r50_coco_200e' if gpu else 'r18_small_50e'}.py")
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16 if gpu else 4,
        help="where it does not grow (four times as many at the most)",
    )
    parser.add_argument(
        "--prototypes", type=int, default=30000, help="global ones at the most (default 30000)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="steps of each size")
    args = parser.parse_args()
    if min(args.batch_size // 2, args.prototypes // 4, args.rounds) < 1:
        parser.error("--batch-size must be 2 or more, --prototypes 4 or more, --rounds 1 or more")
    if not Path(args.config).is_file():
        parser.error(f"--config {args.config}: no such file; give a config of configs/ssprl")
    require_writable(parser, "--out", args.out / "growth.json")
    args.device = torch.device("cuda" if gpu else "cpu")
    return args


def time_steps(
    args: argparse.Namespace, grown: Sequence[tuple[float, dict, int]]
) -> dict[str, list[float]]:
    """Medians, and the line through them.

    Args:
        args: The command's.
        grown: Of each size: its place on the axis, the pyramid, images.
    """
    model = Config.fromfile(args.config).model
    steps = {
        str(place): step_on_noise(build_grown(model, pyramid), images, args.device)
        for place, pyramid, images in grown
    }
    ms = wall_ms(steps, rounds=args.rounds, device=args.device)
    places, times = [place for place, _, _ in grown], list(ms.values())
    slope, start = np.polyfit(places, times, 1)
    return {"at": places, "ms": times, "line": [float(start), float(slope)]}


def measure(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """By what is grown."""
    images, count = args.batch_size, args.prototypes
    scales = [grown_pyramid(number + 1) for number in range(len(SCALES))]
    by_scales = [(pixels(pyramid) / 1e3, pyramid, images) for pyramid in scales]
    paper = grown_pyramid(NUM_SCALES)
    by_images = [(n, paper, n) for n in (images // 2, images, 2 * images, 3 * images, 4 * images)]
    by_prototypes = [
        (k, grown_pyramid(NUM_SCALES, {"s0": k}), images)
        for k in (count // 4, count // 2, 3 * count // 4, count)
    ]
    return {
        "thousand pixels an image, S = 0 to 4": time_steps(args, by_scales),
        "images a step": time_steps(args, by_images),
        "global prototypes": time_steps(args, by_prototypes),
    }


def off_line(found: Mapping[str, list[float]]) -> float:
    """The greatest distance of a median from the line, as a share of it."""
    start, slope = found["line"]
    fitted = [start + slope * place for place in found["at"]]
    return max(abs(ms - line) / line for ms, line in zip(found["ms"], fitted, strict=True))


def draw(found: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """A panel for each, with the line."""
    figure = Figure((10, 3), layout="constrained")
    for axis, (what, panel) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        start, slope = panel["line"]
        ends = [0, max(panel["at"])]
        axis.plot(ends, [start + slope * end for end in ends], color="0.7")
        axis.plot(panel["at"], panel["ms"], "o")
        axis.set(xlabel=what, xlim=0, ylim=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("ms a step")
    with whole_file(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})


def main() -> None:
    args = parse_args()
    found = measure(args)
    draw(found, args.out / "growth.svg")
    what = {
        "config": Path(args.config).stem,
        "batch_size": args.batch_size,
        "device": device_name(args.device),
        "versions": versions(),
    }
    write_json(args.out / "growth.json", {"grown": found, **what})
    for name, panel in found.items():
        times = ", ".join(f"{ms:.0f}" for ms in panel["ms"])
        print(
            f"{name}: {panel['at']}: {times} ms; {100 * off_line(panel):.1f} % off the line at most"
        )


if __name__ == "__main__":
    main()
