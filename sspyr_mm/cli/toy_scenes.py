"""``python -m sspyr_mm toy-scenes DIR``: draws a labelled data set of multi-object scenes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sspyr_mm.datasets.toy_scenes import generate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments.

    Args:
        parser (ArgumentParser): the command's parser.
    """
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to make; left alone if it is finished already")
    parser.add_argument("--num-train", type=int, default=4000, help="training images (default %(default)s)")
    parser.add_argument("--num-val", type=int, default=1000, help="held-out images (default %(default)s)")
    parser.add_argument("--size", default="128", help="HxW or one side, pixels (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same files (default %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="no counter")


def run(args: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        args (Namespace): as ``add_arguments`` defines them.

    Returns:
        int: exit status: 0 drawn or there already, 130 interrupted, 2 wrong arguments or a folder in the way.
    """
    start = time.monotonic()
    try:
        drawn = generate(
            args.dir,
            num_train=args.num_train,
            num_val=args.num_val,
            size=args.size,
            seed=args.seed,
            workers=args.workers,
            progress=not args.quiet,
        )
    except (ValueError, OSError) as error:
        print(f"toy-scenes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"\ntoy-scenes: interrupted, {args.dir} was not made; run the same command again",
            file=sys.stderr,
        )
        return 130
    if not drawn:
        print(f"{args.dir}: finished already with the same parameters, left as it is")
        return 0
    count, seconds = args.num_train + args.num_val, time.monotonic() - start
    print(f"{args.dir}: {count} images in {seconds:.1f} s")
    return 0
