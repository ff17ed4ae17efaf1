"""``python -m sspyr_mm probe``: runs a linear probe on checkpoints, and on the same network with random weights."""

import argparse

from sspyr_mm.cli.arguments import (
    add_checkpoint_options,
    add_custom_import,
    check_writable,
    positive_int,
    reading_options,
)
from sspyr_mm.files import write_json

DEFAULT_SIZE = 224


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoints", nargs="+", help="checkpoints of any known format")
    parser.add_argument(
        "--train",
        required=True,
        help="labelled training images: COCO json, CSV, VOC tree, or a folder with one folder per class",
    )
    parser.add_argument("--val", "--test", required=True, help="held-out images, in the same formats")
    parser.add_argument("--train-split", help="split of --train: of a VOC tree, such as trainval, or of a folder")
    parser.add_argument("--val-split", "--test-split", help="split of --val, such as test")
    parser.add_argument(
        "--size",
        type=positive_int,
        help=f"side of the centre crop in pixels; default: the patch size of scale 0, else {DEFAULT_SIZE}",
    )
    parser.add_argument("--no-random", action="store_true", help="skip the randomly initialised network")
    parser.add_argument("--json", metavar="FILE", help="file for the results, as JSON")
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Probes each network, prints its result on one line, and returns 0."""
    import torch

    from sspyr_mm.benchmarks.networks import random_network, read_networks
    from sspyr_mm.datasets.labelled import match_classes, read_labelled, shared_images, warn_of_shared_images
    from sspyr_mm.features import extract_features
    from sspyr_mm.machine import limit_threads, num_cores
    from sspyr_mm.probes import linear_probe

    if args.json:  # before an hour of work, not after it
        check_writable("--json", args.json)
    train = read_labelled(args.train, split=args.train_split)
    val = read_labelled(args.val, split=args.val_split)
    val = match_classes(train, val, ("--train", "--val"))
    warn_of_shared_images(shared_images(train.paths, val.paths), len(val.paths), ("--train", "--val"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    num_workers = num_cores() // 2
    limit_threads(num_workers)
    networks = []
    for network in read_networks(args.checkpoints, custom_imports=args.custom_import, **reading_options(args)):
        networks.append((network.path, network))
        if not args.no_random:
            networks.append(("the same network, random", random_network(network.checkpoint)))
    rows = []
    for name, network in networks:
        size = args.size or network.checkpoint.patch or DEFAULT_SIZE
        encoder = network.encoder()
        labelled = [
            (extract_features(encoder, part.paths, size=size, device=device, num_workers=num_workers), part.targets)
            for part in (train, val)
        ]
        result = linear_probe(*labelled, multi_label=train.multi_label)
        rows.append({"network": name, "metric": result.metric, "value": result.value, "l2": result.l2, "size": size})
        print(f"{result.metric} {result.value:5.1f}  {name}", flush=True)
    if args.json:
        write_json(args.json, {"train": len(train.paths), "val": len(val.paths), "results": rows})
    return 0
