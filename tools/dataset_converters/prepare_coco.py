"""Verifies COCO in a folder (images and instance annotations) and downloads what is missing."""

import argparse
import sys
from pathlib import Path

from sspyr_mm.datasets.preparation import coco_parts, prepare
from sspyr_mm.datasets.preparation.coco import SPLITS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/coco"))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=["train2014", "val2014"])
    parser.add_argument("--no-download", action="store_true", help="only verify and extract")
    parser.add_argument("--mirror", help="address that names of archives are appended to")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    parts = coco_parts(args.splits)
    return prepare(args.folder, parts, may_download=not args.no_download, mirror=args.mirror)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        print(f"prepare_coco: {error}", file=sys.stderr)
        sys.exit(2)
