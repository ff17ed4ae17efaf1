"""Command-line arguments that several commands have."""

import argparse


def positive_int(text: str) -> int:
    """An integer >= 1.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def add_custom_import(parser: argparse.ArgumentParser) -> None:
    """Declares ``--custom-import``, for every command that builds networks; the modules are imported before it runs."""
    parser.add_argument(
        "--custom-import",
        action="append",
        default=[],
        metavar="MODULE",
        help="module to import first, one that registers a backbone of yours (custom_imports in configs); repeatable",
    )


def add_allow_pickle(parser: argparse.ArgumentParser) -> None:
    """Declares ``--allow-pickle``, the same for every command that reads foreign checkpoints."""
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read objects of any class; a file can run any code this way: only for makers you trust",
    )
