"""``python -m sspyr_mm search``: finds the nearest images, or cells of images, among features of `embed`."""

import argparse

from sspyr_mm.cli.arguments import add_checkpoint_options, add_custom_import, positive_int, reading_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("folder", help="output folder of embed, with --format npy")
    parser.add_argument("image", help="image to search for")
    parser.add_argument("-k", type=positive_int, default=10, help="number of neighbours (default: %(default)s)")
    parser.add_argument("--cell", type=int, nargs=2, metavar=("ROW", "COL"), help="search for this cell, among cells")
    parser.add_argument("--checkpoint", help="the network of the features, if its file has moved")
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Prints cosine, path and cell of every neighbour, nearest first, and returns 0."""
    from sspyr_mm.benchmarks.networks import read_networks
    from sspyr_mm.features.export import read_about
    from sspyr_mm.features.search import search
    from sspyr_mm.files import printable

    about = read_about(args.folder)
    path = args.checkpoint or about["checkpoint"]
    (network,) = read_networks([path], custom_imports=args.custom_import, **reading_options(args))
    if network.identity != about["encoder"]:
        raise ValueError(
            f"The features in {args.folder} are of another network than that of {path}: give its file with "
            "--checkpoint, and --key, --prefix and --ema as for embed"
        )
    cell = tuple(args.cell) if args.cell else None
    for cosine, found, place in search(args.folder, network.encoder(), args.image, count=args.k, cell=cell):
        print(f"{cosine:.4f}  {printable(found)}" + (f"  cell {place[0]} {place[1]}" if place else ""))
    return 0
