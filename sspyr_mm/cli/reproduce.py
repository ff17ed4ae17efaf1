"""``python -m sspyr_mm reproduce``: pre-trains and evaluates every system of a table of the paper."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sspyr_mm.benchmarks.systems import TABLES
from sspyr_mm.cli.arguments import check_writable, positive_int, seed

if TYPE_CHECKING:
    from sspyr_mm.benchmarks.reproduce import Plan

_DATA = {
    "images": "COCO train2014 images, for pre-training",
    "imagenet": "ImageNet training images, for pre-training",
    "coco": "COCO with annotations, for table S-B",
    "voc": "VOC2007, for tables S-C and S-D",
    "voc_masks": "VOC2012 with class masks, for table S-A",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("table", choices=[table.name for table in TABLES], help="table of the paper's supplementary")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=(),
        metavar="NAME",
        help="rows to run, such as 'MoCo v2 (COCO)' or moco-v2-coco (default: all)",
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
        help="write a Slurm array with one task per row and seed to FILE, to submit by `sbatch FILE`, and exit",
    )
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/reproduce"), help="default: %(default)s")
    parser.add_argument("--gpus", type=positive_int, default=1, help="GPUs per pre-training run (default: 1)")
    parser.add_argument(
        "--epochs", type=positive_int, help="epochs of pre-training (default: mini 10, full as the config)"
    )
    parser.add_argument(
        "--num-images", type=positive_int, default=4000, help="number of generated scenes (mini; default: %(default)s)"
    )
    for name, text in _DATA.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="DIR", help=f"full size: {text}")


def run(args: argparse.Namespace) -> int:
    """Prints the plan, runs what is missing, and prints and writes the table; returns 0."""
    from sspyr_mm.benchmarks.reproduce import Plan, plan_steps, run_steps
    from sspyr_mm.benchmarks.slurm_array import write_slurm_array
    from sspyr_mm.benchmarks.systems import find_table

    if args.slurm:
        check_writable("--slurm", args.slurm)
    plan = Plan(
        table=find_table(args.table),
        scale=args.scale,
        seeds=tuple(dict.fromkeys(args.seeds)),
        work_dir=args.work_dir,
        methods=tuple(args.methods),
        data={name: getattr(args, name) for name in _DATA},
        gpus=args.gpus,
        epochs=args.epochs,
        num_images=args.num_images,
    )
    steps = plan_steps(plan)
    unit = "GPU hours at 40 TFLOP/s" if args.scale == "full" else "hours on two CPU cores"
    for step in steps:
        state = "exists" if step.is_done else f"{step.hours:.1f} h"
        print(f"[{state}] {step.what}" + (f"\n    {shlex.join(step.command)}" if args.dry_run else ""))
    left = sum(step.hours for step in steps if not step.is_done)
    print(f"{sum(not step.is_done for step in steps)} of {len(steps)} steps left, about {left:.1f} {unit}", flush=True)
    if args.dry_run:
        return 0
    if args.slurm:
        run_steps(plan, [step for step in steps if step.is_shared])
        num_tasks = write_slurm_array(plan, args.slurm)
        submit = shlex.join(["sbatch", args.slurm])
        print(f"Submit {num_tasks} tasks by `{submit}`; then repeat this command without --slurm for the table")
        return 0
    run_steps(plan, steps)
    _write_table(plan)
    return 0


def _write_table(plan: "Plan") -> None:
    from sspyr_mm.benchmarks.reproduce import build_rows, title
    from sspyr_mm.benchmarks.results.paper_table import plot, to_csv, to_markdown
    from sspyr_mm.files import write_text

    rows = build_rows(plan)
    text = to_markdown(title(plan), rows)
    print(f"\n{text}", end="")
    stem = plan.work_dir / plan.scale / f"table_{plan.table.name}"
    for ending, content in (("md", text), ("csv", to_csv(rows))):
        write_text(f"{stem}.{ending}", content)
    plot(title(plan), rows, f"{stem}.png")
    print(f"Written: {stem}.md, .csv and .png")
