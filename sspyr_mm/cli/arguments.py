"""Command-line arguments that several commands have."""

import argparse
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


def positive_int(text: str) -> int:
    """An integer >= 1.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def check_writable(option: str, path: str) -> None:
    """Finds out before hours of work whether their result can be written; leaves nothing behind.

    Args:
        option: Of the command line, for the message.
        path: Of the file.

    Raises:
        OSError: If it can't.
    """
    folder = Path(path).absolute().parent
    made: list[Path] = []
    try:
        for place in (*reversed(folder.parents), folder):
            if not place.is_dir():
                with suppress(FileExistsError):  # another process made it, or it is a file: reported below
                    place.mkdir()
                    made.append(place)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if Path(path).is_dir():
            raise IsADirectoryError("it is a folder")
    except OSError as error:
        raise OSError(
            f"{option} {path} can't be written ({error}): give the path of a file in a folder of yours"
        ) from error
    finally:
        for place in reversed(made):
            with suppress(OSError):  # another process writes to it already
                place.rmdir()


def require_writable(parser: argparse.ArgumentParser, option: str, path: Path) -> None:
    """Ends a script as its parser does if a result can't be written; see :func:`check_writable`."""
    try:
        check_writable(option, str(path))
    except OSError as error:
        parser.error(str(error))


def json_object(text: str) -> dict:
    """A JSON object.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(
            f'must be a JSON object such as \'{{"endpoint_url": "http://localhost:9000"}}\', got {text!r}'
        )
    return found


def add_custom_import(parser: argparse.ArgumentParser) -> None:
    """Declares ``--custom-import``, for every command that builds networks; the modules are imported before it runs."""
    parser.add_argument(
        "--custom-import",
        action="append",
        default=[],
        metavar="MODULE",
        help="module to import first, one that registers a backbone of yours (custom_imports in configs); repeatable",
    )


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Declares how checkpoints are read, the same for every command that reads them."""
    group = parser.add_argument_group("checkpoint reading (detected automatically by default)")
    group.add_argument("--key", help="entry that holds the tensors, with dots for nested dicts: model.state_dict")
    group.add_argument(
        "--prefix",
        help="prefix of the network's tensor names, such as encoder_k.; '' for no prefix",
    )
    group.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="averaged weights (EMA, teacher), or the raw ones, where a file holds both; default: averaged",
    )
    group.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read objects of any class; a file can run any code this way: only for makers you trust",
    )


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of functions that read checkpoints, from :func:`add_checkpoint_options`."""
    from sspyr_mm.checkpoints import Selection

    select = Selection(key=args.key, prefix=args.prefix, ema=args.ema)
    return {"allow_pickle": args.allow_pickle, "select": select}
