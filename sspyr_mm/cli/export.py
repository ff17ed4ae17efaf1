"""``python -m sspyr_mm export``: the backbone of a checkpoint, for use elsewhere."""

import argparse

from sspyr_mm.cli.arguments import add_allow_pickle, add_custom_import

_INIT = "model.backbone=dict({backbone}, init_cfg=dict(type='Pretrained', checkpoint='{out}'))"
# Target -> how its file is used. The names of `sspyr_mm.checkpoints.formats.TARGETS`, which would import torch.
_USE = {
    "mmpretrain": _INIT,
    "mmdet": _INIT,
    "mmseg": _INIT,
    "torchvision": "model.load_state_dict(torch.load('{out}'), strict=False), which leaves out fc",
    "timm": "{timm}.load_state_dict(torch.load('{out}'))",
    "detectron2": "MODEL.WEIGHTS '{out}', with MODEL.RESNETS.STRIDE_IN_1X1 False and inputs in RGB",
    "safetensors": "safetensors.torch.load_file('{out}')",
    "sspyr_mm": "tools/train.py CONFIG --cfg-options load_from='{out}'",
}
_PREFIXED = "model.init_cfg=dict(type='Pretrained', checkpoint='{out}')"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", help="checkpoint in any format that is read; see inspect")
    parser.add_argument("out", help="file to write")
    parser.add_argument(
        "--to",
        choices=list(_USE),
        default="mmpretrain",
        metavar="TARGET",
        help=f"one of {', '.join(_USE)} (default: %(default)s). sspyr_mm: a whole pre-training checkpoint, "
        "from one of the SS-PRL authors' code",
    )
    parser.add_argument(
        "--full-prefix",
        action="store_true",
        help="names begin with `backbone.`, as in a whole model",
    )
    add_allow_pickle(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Exports.

    Returns:
        0.
    """
    from sspyr_mm.checkpoints import convert_release, read_backbone, write_backbone
    from sspyr_mm.checkpoints.formats.targets import timm_call

    timm = network = ""
    use = _USE[args.to]
    if args.to == "sspyr_mm":
        if args.full_prefix:
            raise ValueError("--full-prefix is for backbones; --to sspyr_mm writes a whole model")
        number = convert_release(args.checkpoint, args.out, allow_pickle=args.allow_pickle)
    else:
        backbone = read_backbone(args.checkpoint, allow_pickle=args.allow_pickle)
        number = write_backbone(
            backbone,
            args.out,
            path=args.checkpoint,
            target=args.to,
            full_prefix=args.full_prefix,
        )
        timm = timm_call(backbone.backbone) if args.to == "timm" else timm
        settings = {"type": backbone.backbone["type"], **backbone.backbone}
        network = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        use = _PREFIXED if args.full_prefix else use
    print(
        f"{args.out}: {number} tensors. Use it with {use.format(out=args.out, timm=timm, backbone=network)}"
    )
    return 0
