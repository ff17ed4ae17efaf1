"""Measures how a step grows with scales, images and prototypes: ``python tools/speed/growth.py --out OUT``.

Times forward and backward passes of the config's network on patches in the device's memory, all sizes in turn, so that
a busy machine slows all of them equally; fits a straight line to the medians. Writes OUT/growth.json and growth.svg.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS
from outputs import require_writable

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.files import configs_dir, whole_file, write_json
from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.bench import describe_machine
from sspyr_mm.speed.timing import wall_ms

SCALES = {
    "s0": dict(region=224, patch=224, num_prototypes=300, alpha=1.0),
    "s1": dict(grid=2, region=314, patch=112, num_prototypes=150, alpha=0.25, beta=0.25),
    "s2": dict(grid=3, region=383, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
    "s3": dict(grid=4, region=448, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
    "s4": dict(grid=5, region=560, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
}
"""The paper's three scales and two finer ones: 1, 4, 9, 16 and 25 patches per view."""
NUM_SCALES = 3
"""Number of the paper's scales, used where something else grows."""


def parse_args() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    folder = configs_dir() / "ssprl"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", type=Path)
    parser.add_argument("--config", default=str(folder / f"{'r50_coco_200e' if gpu else 'r18_small_50e'}.py"))
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16 if gpu else 4,
        help="images per step where the batch does not grow (up to four times as many where it does)",
    )
    parser.add_argument(
        "--prototypes", type=int, default=30000, help="maximum number of global prototypes (default 30000)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="measured steps per size (default 10)")
    args = parser.parse_args()
    if min(args.batch_size // 2, args.prototypes // 4, args.rounds) < 1:
        parser.error("--batch-size must be 2 or more, --prototypes 4 or more, --rounds 1 or more")
    if not Path(args.config).is_file():
        parser.error(f"--config {args.config}: no such file; give a config of configs/ssprl")
    require_writable(parser, "--out", args.out / "growth.json")
    args.device = torch.device("cuda" if gpu else "cpu")
    return args


def grown_pyramid(num_scales: int, prototypes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Returns the first of :data:`SCALES`, some with another number of prototypes."""
    pyramid: dict[str, Any] = {name: dict(SCALES[name]) for name in list(SCALES)[:num_scales]}
    for name, count in (prototypes or {}).items():
        pyramid[name]["num_prototypes"] = count
    return pyramid


def count_pixels(pyramid: PyramidSpec | Mapping[str, Any]) -> int:
    """Returns the number of pixels of an image that the encoder sees."""
    groups = PyramidSpec.from_config(pyramid).groups
    return sum(g.num_views * g.num_patches * g.patch**2 for g in groups)


def build_grown(model: Any, pyramid: dict[str, Any]) -> SSPRL:
    """Builds a config's network with another pyramid, in training mode, for one process."""
    built = MODELS.build({**model, "pyramid": pyramid})
    return revert_sync_batchnorm(built).train()


def step_on_noise(model: SSPRL, batch_size: int, device: torch.device) -> Callable[[], object]:
    """Returns a forward and backward pass on patches in the device's memory."""
    model = model.to(device)
    patches = {
        g.name: torch.randn(g.num_views, batch_size, g.num_patches, 3, g.patch, g.patch, device=device)
        for g in model.pyramid.groups
    }
    return partial(run_step, model, patches)


def run_step(model: SSPRL, patches: Mapping[str, torch.Tensor]) -> None:
    model.zero_grad()
    losses = model.loss(patches)
    torch.stack([v for k, v in losses.items() if k.startswith("loss")]).sum().backward()


def time_steps(args: argparse.Namespace, grown: Sequence[tuple[float, dict, int]]) -> dict[str, list[float]]:
    """Returns median times and the line through them; a size is a place on the axis, a pyramid and a batch size."""
    model = Config.fromfile(args.config).model
    steps = {
        str(place): step_on_noise(build_grown(model, pyramid), images, args.device) for place, pyramid, images in grown
    }
    ms = wall_ms(steps, rounds=args.rounds)
    places, times = [place for place, _, _ in grown], list(ms.values())
    slope, start = np.polyfit(places, times, 1)
    return {"at": places, "ms": times, "line": [float(start), float(slope)]}


def measure(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Returns the times by the quantity that grows."""
    images, count = args.batch_size, args.prototypes
    scales = [grown_pyramid(number + 1) for number in range(len(SCALES))]
    by_scales = [(count_pixels(pyramid) / 1e3, pyramid, images) for pyramid in scales]
    paper = grown_pyramid(NUM_SCALES)
    by_images = [(n, paper, n) for n in (images // 2, images, 2 * images, 3 * images, 4 * images)]
    by_prototypes = [
        (k, grown_pyramid(NUM_SCALES, {"s0": k}), images) for k in (count // 4, count // 2, 3 * count // 4, count)
    ]
    return {
        "thousand pixels per image, S = 0 to 4": time_steps(args, by_scales),
        "images per step": time_steps(args, by_images),
        "global prototypes": time_steps(args, by_prototypes),
    }


def off_line(found: Mapping[str, list[float]]) -> float:
    """Returns the largest relative distance of a median from the line."""
    start, slope = found["line"]
    fitted = [start + slope * place for place in found["at"]]
    return max(abs(ms - line) / line for ms, line in zip(found["ms"], fitted, strict=True))


def draw(found: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Draws a panel with the line for each quantity."""
    figure = Figure((10, 3), layout="constrained")
    for axis, (what, panel) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        start, slope = panel["line"]
        ends = [0, max(panel["at"])]
        axis.plot(ends, [start + slope * end for end in ends], color="0.7")
        axis.plot(panel["at"], panel["ms"], "o")
        axis.set(xlabel=what, xlim=0, ylim=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("ms per step")
    with whole_file(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})


def main() -> None:
    args = parse_args()
    found = measure(args)
    draw(found, args.out / "growth.svg")
    what = {"config": Path(args.config).stem, "batch_size": args.batch_size, **describe_machine(args.device)}
    write_json(args.out / "growth.json", {"grown": found, **what})
    for name, panel in found.items():
        times = ", ".join(f"{ms:.0f}" for ms in panel["ms"])
        print(f"{name}: {panel['at']}: {times} ms; {100 * off_line(panel):.1f} % off the line at most")


if __name__ == "__main__":
    main()
