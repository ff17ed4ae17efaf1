"""``python -m sspyr_mm export``: the backbone of a checkpoint, for use elsewhere."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", help="pre-training checkpoint")
    parser.add_argument("out", help="file to write")


def run(args: argparse.Namespace) -> int:
    """Exports.

    Returns:
        0.
    """
    from sspyr_mm.checkpoints import export_backbone

    number = export_backbone(args.checkpoint, args.out)
    print(
        f"{args.out}: {number} tensors. Use it with model.backbone.init_cfg="
        f"dict(type='Pretrained', checkpoint='{args.out}')"
    )
    return 0
