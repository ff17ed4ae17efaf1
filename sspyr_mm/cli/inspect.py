"""``python -m sspyr_mm inspect``: shows format, architecture and contents of a checkpoint."""

import argparse

from sspyr_mm.cli.arguments import add_checkpoint_options, add_custom_import, reading_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", help="checkpoint of any known format")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_checkpoint_options(parser)
    add_custom_import(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the contents of the file."""
    import contextlib
    import json
    import sys

    # OpenMMLab prints warnings to stdout, e.g. about missing ops, which would break the JSON.
    with contextlib.redirect_stdout(sys.stderr):
        from sspyr_mm.checkpoints import inspect_checkpoint

        found = inspect_checkpoint(args.checkpoint, **reading_options(args))
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    rows = {
        "format": found["format"],
        "found in": found["place"],
        "backbone": found["architecture"],
        "tensors": f"{found['num_tensors']}, {found['num_parameters']:,} parameters",
        "RGB mean": ", ".join(f"{x:.3f}" for x in found["mean"]),
        "RGB std": ", ".join(f"{x:.3f}" for x in found["std"]),
        "decoding": ", ".join(f"{k}={v}" for k, v in found["decoding"].items()),
        "patch": f"{found['patch']} px" if found["patch"] else None,
        "also in it": ", ".join(f"{k} ({n})" for k, n in found["other_tensors"].items()),
        "entries": ", ".join(found["other_entries"]),
        "trained": ", ".join(f"{k} {found[k]}" for k in ("epoch", "iter") if found[k] is not None),
        "sha256": found["sha256"],
    }
    print(args.checkpoint)
    for name, value in rows.items():
        if value:
            print(f"  {name:11} {value}")
    return 0
