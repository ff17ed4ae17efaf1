"""The command line that the tools for data sets share."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sspyr_mm.datasets.preparation.parts import Part, prepare


def run_tool(
    name: str,
    description: str | None,
    folder: str,
    parts: Callable[[argparse.Namespace], Sequence[Part]],
    add_arguments: Callable[[argparse.ArgumentParser], object] | None = None,
) -> int:
    """Reads the command line and prepares a data set.

    Args:
        name: Of the tool, for messages.
        description: What it does.
        folder: Default of its first argument.
        parts: What the data set consists of, from the arguments.
        add_arguments: Declares those of its own.

    Returns:
        Exit status: 0 if the data set is complete, else 2.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(folder))
    parser.add_argument(
        "--no-download", action="store_true", help="only verify, and extract what is there"
    )
    parser.add_argument("--mirror", help="address that names of archives are appended to")
    if add_arguments is not None:
        add_arguments(parser)
    args = parser.parse_args()
    try:
        return prepare(
            args.folder, parts(args), may_download=not args.no_download, mirror=args.mirror
        )
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
