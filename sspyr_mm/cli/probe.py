"""``python -m sspyr_mm probe``: linear probe of checkpoints, and of the same network at random."""

import argparse

from sspyr_mm.cli.arguments import (
    add_checkpoint_options,
    add_custom_import,
    check_writable,
    positive_int,
    reading_options,
)
from sspyr_mm.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoints", nargs="+", help="pre-training checkpoints")
    parser.add_argument(
        "--train",
        required=True,
        help="labelled images: a COCO json, a csv, a VOC tree, or a folder with a folder per class",
    )
    parser.add_argument("--val", required=True, help="held-out images, likewise")
    parser.add_argument("--train-split", help="of a VOC tree, such as trainval, or of a folder")
    parser.add_argument("--val-split", help="likewise, such as test")
    parser.add_argument(
        "--size",
        type=positive_int,
        help="side of the centre crop in pixels; default: that of scale 0",
    )
    parser.add_argument(
        "--no-random", action="store_true", help="leave out the randomly initialised network"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Probes each network and prints a table.

    Returns:
        0.
    """
    import sys

    import torch
    from mmengine.runner import set_random_seed

    from sspyr_mm.checkpoints import load_pretraining, random_model
    from sspyr_mm.datasets.labelled import match_classes, read_labelled
    from sspyr_mm.evaluation import extract_features, linear_probe

    if args.json:  # not after an hour's work
        check_writable("--json", args.json)
    train = read_labelled(args.train, split=args.train_split)
    val = read_labelled(args.val, split=args.val_split)
    val = match_classes(train, val, ("--train", "--val"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for path in args.checkpoints:
        cfg, model = load_pretraining(path, **reading_options(args))
        size = args.size or model.pyramid.scales[0].patch
        networks = [(path, model)]
        if not args.no_random:
            set_random_seed(cfg.get("randomness", {}).get("seed") or 0)
            networks.append(("the same network, random", random_model(cfg)))
        for name, network in networks:
            feats = [
                extract_features(
                    network, part.paths, size=size, device=device, progress=sys.stderr.isatty()
                )
                for part in (train, val)
            ]
            result = linear_probe(
                (feats[0], train.targets), (feats[1], val.targets), multi_label=train.multi_label
            )
            rows.append(
                {
                    "network": name,
                    "metric": result.metric,
                    "value": result.value,
                    "l2": result.l2,
                    "size": size,
                }
            )
            print(f"{result.metric} {result.value:5.1f}  {name}", flush=True)
    if args.json:
        write_json(args.json, {"train": len(train.paths), "val": len(val.paths), "results": rows})
    return 0
