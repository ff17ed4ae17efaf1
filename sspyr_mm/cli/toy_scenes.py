"""``python -m sspyr_mm toy-scenes DIR``: draws a labelled data set of multi-object scenes."""

import argparse
import time
from pathlib import Path

from sspyr_mm.datasets.toy_scenes import generate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "dir", type=Path, metavar="DIR", help="output folder; an already finished one is left unchanged"
    )
    parser.add_argument("--num-train", type=int, default=4000, help="number of training images (default %(default)s)")
    parser.add_argument("--num-val", type=int, default=1000, help="number of held-out images (default %(default)s)")
    parser.add_argument("--size", default="128", help="image size in pixels: HxW or one side (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed; equal seeds give equal files (default %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="number of processes (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="do not print progress")


def run(args: argparse.Namespace) -> int:
    """Draws the data set; returns 0 for a new or finished folder."""
    start = time.monotonic()
    drawn = generate(
        args.dir,
        num_train=args.num_train,
        num_val=args.num_val,
        size=args.size,
        seed=args.seed,
        workers=args.workers,
        progress=not args.quiet,
    )
    if drawn:
        print(f"{args.dir}: {args.num_train + args.num_val} images in {time.monotonic() - start:.1f} s")
    else:
        print(f"{args.dir}: already finished with the same parameters, left unchanged")
    return 0
