"""Output files of the scripts in this folder."""

import argparse
from pathlib import Path

from sspyr_mm.cli.arguments import check_writable


def require_writable(parser: argparse.ArgumentParser, option: str, path: Path) -> None:
    """Exits with a usage message if a result can't be written; see :func:`check_writable`."""
    try:
        check_writable(option, str(path))
    except OSError as error:
        parser.error(str(error))
