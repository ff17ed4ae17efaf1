"""``python -m sspyr_mm export``: writes the backbone of a checkpoint for other programs."""

import argparse
import shlex

from sspyr_mm.cli.arguments import add_checkpoint_options, add_custom_import, reading_options

_INIT = "model.backbone=dict({backbone}, init_cfg=dict(type='Pretrained', checkpoint={out}))"
# Target -> usage of its file, `out` in Python, `shell` on a command line. Names as in
# `sspyr_mm.checkpoints.formats.TARGETS`, whose import would load torch.
_USE = {
    "mmpretrain": _INIT,
    "mmdet": _INIT,
    "mmseg": _INIT,
    "torchvision": "model.load_state_dict(torch.load({out}), strict=False), without fc",
    "timm": "{timm}.load_state_dict(torch.load({out}))",
    "detectron2": "MODEL.WEIGHTS {shell}, with MODEL.RESNETS.STRIDE_IN_1X1 False and inputs in RGB",
    "safetensors": "safetensors.torch.load_file({out})",
    "sspyr_mm": "tools/train.py CONFIG --cfg-options load_from={shell}",
}
_IN_CONFIG = "load_from={out} in CONFIG, and tools/train.py CONFIG"
_PREFIXED = "model.init_cfg=dict(type='Pretrained', checkpoint={out})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", help="checkpoint of any known format; see inspect")
    parser.add_argument("out", help="output file; *.safetensors for --to safetensors, *.pkl for --to detectron2")
    parser.add_argument(
        "--to",
        choices=list(_USE),
        default="mmpretrain",
        metavar="TARGET",
        help=f"one of {', '.join(_USE)} (default: %(default)s). sspyr_mm: a whole pre-training checkpoint, "
        "converted from one of the official code",
    )
    parser.add_argument(
        "--full-prefix", action="store_true", help="write names that begin with `backbone.`, as in a whole model"
    )
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the file and prints its usage."""
    from sspyr_mm.checkpoints import convert_official, read_backbone, write_backbone
    from sspyr_mm.checkpoints.formats.targets import check_ending, check_target, timm_call

    timm = network = ""
    if args.to == "sspyr_mm":
        if args.full_prefix:
            raise ValueError("--full-prefix is for backbones; --to sspyr_mm writes a whole model")
        check_ending(args.to, args.out)
        number = convert_official(args.checkpoint, args.out, **reading_options(args))
    else:
        check_target(args.to, args.out, full_prefix=args.full_prefix)
        backbone = read_backbone(args.checkpoint, **reading_options(args))
        print(f"{args.checkpoint}: {backbone.source} in {backbone.place}")
        number = write_backbone(backbone, args.out, path=args.checkpoint, target=args.to, full_prefix=args.full_prefix)
        timm = timm_call(backbone.backbone) if args.to == "timm" else timm
        settings = {"type": backbone.backbone["type"], **backbone.backbone}
        network = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    use = _usage(args.to, args.out, full_prefix=args.full_prefix, timm=timm, backbone=network)
    print(f"{args.out}: {number} tensors. Use it with {use}")
    return 0


def _usage(target: str, out: str, *, full_prefix: bool, timm: str, backbone: str) -> str:
    """Returns the usage of the file, ready to copy, with its name quoted for Python or the shell."""
    use = _PREFIXED if full_prefix else _USE[target]
    # mmengine's --cfg-options drops blanks and quotes, and makes lists of the rest.
    if target == "sspyr_mm" and set(out) & set(" ,'\"[]()"):
        use = _IN_CONFIG
    return use.format(out=repr(out), shell=shlex.quote(out), timm=timm, backbone=backbone)
