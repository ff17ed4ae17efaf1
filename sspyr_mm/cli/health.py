"""``python -m sspyr_mm health``: reports whether a checkpoint's prototypes are in use."""

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
    """Prints a line per scale; returns 0, or 1 if a scale is ill, see :attr:`ScaleHealth.is_ill`."""
    from mmengine.config import Config

    from sspyr_mm.checkpoints import load_pretraining
    from sspyr_mm.checkpoints.formats.training_settings import training_decoding
    from sspyr_mm.datasets import build_pretraining_dataset
    from sspyr_mm.reports import measure_health

    cfg, model = load_pretraining(args.checkpoint, **reading_options(args))
    # Only the views and the decoding of the file: its data set could be any, of any place.
    load = {"type": "LoadRGBImage", **training_decoding(cfg, where=args.checkpoint)}
    pipeline = [load, {"type": "PyramidViewTransform"}, {"type": "PackPyramidInputs"}]
    images = {"type": "UnlabelledImages", "data_root": args.images, "pipeline": pipeline}
    dataset = build_pretraining_dataset(Config({"model": cfg.model, "train_dataloader": {"dataset": images}}))
    ill, found = False, measure_health(model, dataset, num_images=args.num_images)
    print(f"{'scale':6}{'patches':>8}{'used / K':>12}{'even use':>10}{'code H':>8}{'CE / ln K':>11}{'cosine':>8}")
    for s in found:
        ill |= s.is_ill
        print(
            f"{s.scale:6}{s.num_samples:8}{s.used:>5} / {s.num_prototypes:<4}{s.mean_entropy:10.3f}"
            f"{s.code_entropy:8.3f}{s.ce_ratio:11.3f}{s.mean_cosine:8.3f}"
        )
    if ill:
        print(
            "A scale has learned nothing or lost its prototypes: see docs/small_batches.md for the settings that help."
        )
    return int(ill)
