"""Verifies COCO in a folder (images and instance annotations) and downloads what is missing."""

import argparse
import sys

from sspyr_mm.datasets.preparation import coco_parts, run_tool
from sspyr_mm.datasets.preparation.coco import SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=["train2014", "val2014"])


if __name__ == "__main__":
    sys.exit(
        run_tool(
            "prepare_coco",
            __doc__,
            "data/coco",
            lambda args: coco_parts(args.splits),
            add_arguments,
        )
    )
