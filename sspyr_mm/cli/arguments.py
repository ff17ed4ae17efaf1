"""Command-line arguments shared by several commands."""

import argparse
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


def positive_int(text: str) -> int:
    """Parses an integer >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def non_negative_int(text: str) -> int:
    """Parses an integer >= 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Parses a seed that numpy and torch accept."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2^32 - 1, got {text!r}")
    return int(text)


def check_writable(option: str, path: str) -> None:
    """Raises OSError if a file can't be written, before the work for it; leaves nothing behind."""
    folder = Path(path).absolute().parent
    made: list[Path] = []
    try:
        for place in (*reversed(folder.parents), folder):
            if not place.is_dir():
                with suppress(FileExistsError):  # another process created it, or it is a file: reported below
                    place.mkdir()
                    made.append(place)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if Path(path).is_dir():
            raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise OSError(
            f"{option} {path} can't be written ({error}): give the path of a file in a writable folder"
        ) from error
    finally:
        for place in reversed(made):
            with suppress(OSError):  # another process is writing to it
                place.rmdir()


def json_object(text: str) -> dict:
    """Parses a JSON object."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(
            f'must be a JSON object such as \'{{"endpoint_url": "http://localhost:9000"}}\', got {text!r}'
        )
    return found


def add_images_and_out(parser: argparse.ArgumentParser, *, needs_images: bool = True, note: str = "") -> None:
    """Declares the options of commands that read images without labels and write files on them."""
    parser.add_argument("--images", required=needs_images, help=f"images: folder, list file or COCO json{note}")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="output folder")
    help_text = "processes that decode, per device (default: %(default)s)"
    parser.add_argument("--workers", type=non_negative_int, default=2, help=help_text)


def add_custom_import(parser: argparse.ArgumentParser) -> None:
    """Declares ``--custom-import`` for commands that build networks."""
    parser.add_argument(
        "--custom-import",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that registers your own backbone, imported first (custom_imports in configs); repeatable",
    )


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options for reading checkpoints, shared by all commands that read them."""
    group = parser.add_argument_group("checkpoint reading (detected automatically by default)")
    group.add_argument("--key", help="entry that holds the tensors, with dots for nested dicts: model.state_dict")
    group.add_argument("--prefix", help="prefix of the network's tensor names, such as encoder_k.; '' for no prefix")
    group.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="averaged weights (EMA, teacher) or raw ones, if a file holds both; default: averaged",
    )
    group.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read objects of any class, which lets the file run any code: only for files from a source you trust",
    )


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns keyword arguments for reading checkpoints from the options of :func:`add_checkpoint_options`."""
    from sspyr_mm.checkpoints import Selection

    select = Selection(key=args.key, prefix=args.prefix, ema=args.ema)
    return {"allow_pickle": args.allow_pickle, "select": select}
