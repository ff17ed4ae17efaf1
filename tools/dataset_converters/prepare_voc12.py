"""Verifies Pascal VOC 2012 with SBD's masks (VOCdevkit/VOC2012: train_aug, val) and downloads what is missing."""

import argparse
import sys
from pathlib import Path

from sspyr_mm.datasets.preparation import prepare, voc12_parts


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data"))
    parser.add_argument("--no-download", action="store_true", help="only verify, extract, convert")
    parser.add_argument("--mirror", help="address that names of archives are appended to")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    return prepare(
        args.folder, voc12_parts(), may_download=not args.no_download, mirror=args.mirror
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        print(f"prepare_voc12: {error}", file=sys.stderr)
        sys.exit(2)
