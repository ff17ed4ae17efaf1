"""``python -m sspyr_mm pack IMAGES OUT``: packs images into shards that training can stream."""

from __future__ import annotations

import argparse
import sys
import time

from sspyr_mm.cli.arguments import json_object, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="folders, list files (.txt) or COCO jsons, as for --data-root of tools/train.py",
    )
    parser.add_argument("out", metavar="OUT", help="output folder or URL: s3://bucket/name, gs://..., r2://...")
    parser.add_argument("--shard-mb", type=positive_int, default=64, help="size of a shard, MB (default %(default)s)")
    parser.add_argument("--num-workers", type=positive_int, default=None, help="processes (default: one per core)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the order in shards (default %(default)s)")
    parser.add_argument(
        "--storage-options",
        type=json_object,
        default={},
        metavar="JSON",
        help='options of an object store, e.g. \'{"endpoint_url": "http://localhost:9000"}\' (keys: environment)',
    )


def run(args: argparse.Namespace) -> int:
    """Packs the images and reports those that were skipped; returns 0, or 2 if packing failed."""
    from sspyr_mm.datasets.streaming.shards import pack
    from sspyr_mm.datasets.unlabelled import UnlabelledImages

    start = time.monotonic()
    images = UnlabelledImages(args.images, lazy_init=True)
    paths = images.list_images()
    for line in images.notices:
        print(f"pack: {line}", file=sys.stderr)
    try:
        skipped = pack(
            paths,
            args.out,
            shard_bytes=args.shard_mb * 10**6,
            num_workers=args.num_workers or 0,
            seed=args.seed,
            storage_options=args.storage_options,
        )
    except RuntimeError as error:  # of a process or an object store
        print(f"pack: {error}", file=sys.stderr)
        return 2
    for line in skipped:
        print(f"pack: skipped {line}", file=sys.stderr)
    rest = f", {len(skipped)} skipped" if skipped else ""
    print(f"{args.out}: {len(paths) - len(skipped)} images{rest} in {time.monotonic() - start:.1f} s")
    return 0
