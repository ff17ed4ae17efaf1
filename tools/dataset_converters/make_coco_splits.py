"""Writes the lists of images for semi-supervised learning on COCO train2014 (1 and 10 %, three seeds)."""

import argparse
import json
import sys
from pathlib import Path

from sspyr_mm.datasets.splits import write_split

OUT = Path(__file__).resolve().parents[2] / "configs/benchmarks/classification/splits"
NUM_IMAGES = 82783  # of train2014


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("annotations", type=Path, help="instances_train2014.json")
    parser.add_argument("--out", type=Path, default=OUT, help="folder (default: %(default)s)")
    parser.add_argument("--name", default="coco2014", help="prefix of the file names")
    parser.add_argument("--percent", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--any-images", action="store_true", help="accept annotations of another data set")
    return parser.parse_args()


def read_ids(path: Path) -> list[str]:
    try:
        return [str(image["id"]) for image in json.loads(path.read_bytes())["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a COCO json: it needs images[].id ({error})") from error


def main() -> int:
    args = parse_args()
    try:
        ids = read_ids(args.annotations)
        if len(ids) != NUM_IMAGES and not args.any_images:
            raise ValueError(
                f"{args.annotations} has {len(ids)} images, train2014 has {NUM_IMAGES}: give "
                "instances_train2014.json, or --any-images and a --name"
            )
        for percent in args.percent:
            for seed in args.seeds:
                path = args.out / f"{args.name}_{percent}pct_seed{seed}.txt"
                count = write_split(path, ids, percent=percent, seed=seed)
                print(f"{path}: {count} of {len(ids)} images")
    except (ValueError, OSError) as error:
        print(f"make_coco_splits: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
