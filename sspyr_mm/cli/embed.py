"""``python -m sspyr_mm embed``: writes the features of images, and of cells in them."""

import argparse
import os

from sspyr_mm.cli.arguments import (
    add_checkpoint_options,
    add_custom_import,
    add_images_and_out,
    positive_int,
    reading_options,
)

DEFAULT_SIZE = 224
_FORMATS = ("npy", "parquet", "csv")  # names as in `sspyr_mm.features.FORMATS`, whose import would load torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", help="checkpoint of any known format")
    add_images_and_out(parser)
    parser.add_argument(
        "--size",
        type=positive_int,
        help=f"side of the centre crop in pixels; default: the patch size of scale 0, else {DEFAULT_SIZE}",
    )
    parser.add_argument("--grid", type=positive_int, metavar="G", help="also G x G cells of every image")
    parser.add_argument(
        "--format",
        nargs="+",
        choices=_FORMATS,
        default=["npy"],
        help="npy: images.npy, cells.npy (float16), paths.csv; parquet, csv: one file (default: npy)",
    )
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the files, prints them, and returns 0."""
    from sspyr_mm.benchmarks.networks import read_networks
    from sspyr_mm.datasets import UnlabelledImages
    from sspyr_mm.features import write_features
    from sspyr_mm.machine import limit_threads, list_devices

    (network,) = read_networks([args.checkpoint], custom_imports=args.custom_import, **reading_options(args))
    paths = UnlabelledImages(args.images, lazy_init=True).list_images()
    encoder = network.encoder()
    encoder.grid = args.grid or 0
    limit_threads(args.workers)
    files = write_features(
        encoder,
        paths,
        args.out,
        size=args.size or network.checkpoint.patch or DEFAULT_SIZE,
        formats=args.format,
        source={"checkpoint": os.path.abspath(args.checkpoint)},
        devices=list_devices(),
        num_workers=args.workers,
    )
    for file in files:
        print(f"{file}: {len(paths)} images")
    return 0
