"""``python -m sspyr_mm reproduce``: pre-trains and evaluates every system of a table of the paper."""

import argparse
import shlex
from pathlib import Path

from sspyr_mm.benchmarks.systems import TABLES
from sspyr_mm.cli.arguments import positive_int

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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="random seeds (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="print commands, estimates and finished steps")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/reproduce"), help="default: %(default)s")
    parser.add_argument("--gpus", type=positive_int, default=1, help="GPUs per pre-training run (default: 1)")
    parser.add_argument(
        "--epochs", type=positive_int, help="epochs of pre-training (default: mini 40, full as the config)"
    )
    parser.add_argument(
        "--num-images", type=positive_int, default=4000, help="number of generated scenes (mini; default: %(default)s)"
    )
    for name, text in _DATA.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="DIR", help=f"full size: {text}")


def run(args: argparse.Namespace) -> int:
    """Prints the plan, runs what is missing, and prints and writes the table; returns 0."""
    from sspyr_mm.benchmarks.reproduce import Plan, build_rows, plan_steps, run_steps, to_markdown
    from sspyr_mm.benchmarks.systems import find_table
    from sspyr_mm.files import whole_file, write_json

    plan = Plan(
        table=find_table(args.table),
        scale=args.scale,
        seeds=tuple(args.seeds),
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
    print(f"{sum(not step.is_done for step in steps)} of {len(steps)} steps left, about {left:.1f} {unit}")
    if args.dry_run:
        return 0
    run_steps(plan, steps)
    rows = build_rows(plan)
    text = to_markdown(plan, rows)
    print(f"\n{text}", end="")
    stem = args.work_dir / args.scale / f"table_{args.table}"
    with whole_file(f"{stem}.md") as partial:
        partial.write_text(text)
    write_json(f"{stem}.json", rows)
    print(f"Written: {stem}.md, {stem}.json")
    return 0
