"""``python -m sspyr_mm health``: reports whether a pre-training checkpoint has learned something, without labels."""

import argparse

from sspyr_mm.cli.arguments import add_checkpoint_options, add_custom_import, positive_int, reading_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", help="pre-training checkpoint")
    parser.add_argument("--images", required=True, help="images: folder, list file or COCO json")
    parser.add_argument("--num-images", type=positive_int, default=512, help="number of images (default: %(default)s)")
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Prints a line per group of patches; returns 0, or 1 if one shows a sign of failure."""
    from mmengine.config import Config

    from sspyr_mm.checkpoints import load_pretraining
    from sspyr_mm.checkpoints.formats.training_settings import training_decoding
    from sspyr_mm.datasets import build_pretraining_dataset
    from sspyr_mm.health import format_table
    from sspyr_mm.reports import measure_health

    cfg, model = load_pretraining(args.checkpoint, **reading_options(args))
    # Only the views and the decoding of the file: its data set could be any, of any place.
    load = {"type": "LoadRGBImage", **training_decoding(cfg, where=args.checkpoint)}
    pipeline = [load, {"type": "PyramidViewTransform"}, {"type": "PackPyramidInputs"}]
    images = {"type": "UnlabelledImages", "data_root": args.images, "pipeline": pipeline}
    dataset = build_pretraining_dataset(Config({"model": cfg.model, "train_dataloader": {"dataset": images}}))
    found = measure_health(model, dataset, num_images=args.num_images)
    verdicts = {one.name: one.finding.sign if one.finding else "fine" for one in found}
    print("\n".join(format_table({one.name: one.values for one in found}, verdicts)))
    for one in found:
        if one.finding:
            print(f"{one.name} is not fine, {one.finding.sign}: {one.finding.advice}.")
    return int(any(one.finding for one in found))
