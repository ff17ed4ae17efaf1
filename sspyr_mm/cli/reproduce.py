"""``python -m sspyr_mm reproduce``: pre-trains and evaluates every system of a table of the paper."""

import argparse
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sspyr_mm.benchmarks.systems import TABLES
from sspyr_mm.cli.arguments import check_writable, positive_int, seed

if TYPE_CHECKING:
    from sspyr_mm.benchmarks.plan import Plan

_DATA = {
    "images": "COCO train2014 images, for pre-training",
    "imagenet": "ImageNet training images, for pre-training",
    "coco": "COCO with annotations, for table S-B",
    "voc": "VOC2007, for tables S-C and S-D",
    "voc_masks": "VOC2012 with class masks, for table S-A",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    tables = [table.name for table in TABLES]
    parser.add_argument("table", type=str.upper, choices=tables, help="table of the paper's supplementary")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=(),
        metavar="NAME",
        help="rows to run, such as moco-v2-coco or 'MoCo v2 (COCO)' (default: all); MaskCo is a reconstruction",
    )
    parser.add_argument(
        "--scale",
        choices=("mini", "full"),
        default="mini",
        help="mini: ResNet-18 of width 16 on generated scenes, for two CPU cores; full: the paper's (default: mini)",
    )
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0], help="random seeds (default: 0)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run", action="store_true", help="print commands, estimates and finished steps, and exit"
    )
    instead.add_argument(
        "--slurm",
        metavar="FILE",
        help="write a Slurm array with one task per row and seed to FILE, to submit by `sbatch FILE`, and exit; "
        "missing scenes of the mini size are drawn before",
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/reproduce"), help="default: %(default)s")
    parser.add_argument("--gpus", type=positive_int, default=1, help="GPUs per pre-training run (default: 1)")
    parser.add_argument(
        "--jobs",
        type=positive_int,
        default=1,
        metavar="N",
        help="rows to run at the same time, each with its share of the cores, and --gpus GPUs (default: 1)",
    )
    parser.add_argument(
        "--epochs", type=positive_int, help="epochs of pre-training (default: mini 40, full as the config)"
    )
    parser.add_argument("--num-images", type=positive_int, help="number of generated scenes (mini size; default: 4000)")
    for name, text in _DATA.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="DIR", help=f"full size: {text}")


def run(args: argparse.Namespace) -> int:
    """Prints the plan, runs what is missing, and prints and writes the table; returns 0."""
    from sspyr_mm.benchmarks.plan import Plan
    from sspyr_mm.benchmarks.reproduce import plan_steps, run_steps
    from sspyr_mm.benchmarks.slurm_array import write_slurm_array
    from sspyr_mm.benchmarks.systems import find_table

    _check(args)
    plan = Plan(
        table=find_table(args.table),
        scale=args.scale,
        seeds=tuple(dict.fromkeys(args.seeds)),
        work_dir=args.work_dir,
        methods=tuple(args.methods),
        data={name: getattr(args, name) for name in _DATA},
        gpus=args.gpus,
        jobs=args.jobs,
        epochs=args.epochs,
        num_images=args.num_images or Plan.num_images,
    )
    steps = plan_steps(plan)
    unit = "of one GPU at 40 TFLOP/s" if args.scale == "full" else "on two CPU cores, one row at a time"
    print("Steps, each with its estimated time, or [exists] if it is finished:")
    for step in steps:
        state = "exists" if step.is_done else _duration(step.hours)
        print(f"[{state}] {step.what}" + (f"\n    {shlex.join(step.command)}" if args.dry_run else ""))
    left = [step.hours for step in steps if not step.is_done]
    print(f"{len(left)} of {len(steps)} steps left, about {_duration(sum(left))} {unit}", flush=True)
    if args.dry_run:
        return 0
    if args.slurm:
        run_steps(plan, [step for step in steps if step.row is None])
        num_tasks = write_slurm_array(plan, args.slurm)
        submit = shlex.join(["sbatch", args.slurm])
        print(f"Submit {num_tasks} tasks by `{submit}`; then repeat this command without --slurm for the table")
        return 0
    try:
        run_steps(plan, steps)
    except ChildProcessError:
        _write_table(plan)
        raise
    _write_table(plan)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ValueError for options of the other size, OSError for a script that can't be written."""
    given = [f"--{name.replace('_', '-')}" for name in _DATA if getattr(args, name)]
    if given and args.scale == "mini":
        raise ValueError(
            f"{', '.join(given)}: for --scale full; the mini size draws its own images, leave the option out"
        )
    if args.num_images and args.scale == "full":
        raise ValueError(f"--num-images {args.num_images} is for --scale mini: the full size takes all images of a set")
    if args.slurm:
        if args.jobs > 1:
            raise ValueError(f"--jobs {args.jobs} is for this machine: a Slurm array has a task per row and seed")
        if not (folder := Path(args.slurm).absolute().parent).is_dir():
            raise ValueError(f"--slurm {args.slurm}: there is no folder {folder}; create it, or give another path")
        check_writable("--slurm", args.slurm)


def _duration(hours: float) -> str:
    """Formats an estimate in minutes, from an hour on in hours."""
    return f"{math.ceil(60 * hours)} min" if hours < 1 else f"{hours:.1f} h"


def _write_table(plan: "Plan") -> None:
    from sspyr_mm.benchmarks.reproduce import build_table
    from sspyr_mm.benchmarks.results.paper_table import plot, to_csv, to_markdown
    from sspyr_mm.files import write_text

    table = build_table(plan)
    if not any(row.values for row in table.rows):  # the first steps failed
        return
    text = to_markdown(table)
    print(f"\n{text}", end="")
    stem = plan.work_dir / plan.scale / f"table_{plan.table.name}"
    for ending, content in (("md", text), ("csv", to_csv(table))):
        write_text(f"{stem}.{ending}", content)
    plot(table, f"{stem}.png")
    print(f"Written: {stem}.md, .csv and .png")
