"""``python -m sspyr_mm COMMAND``: each command is a module of :mod:`sspyr_mm.cli`, imported only when it is run."""

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from sspyr_mm.compat import check_versions

# command -> (module, one line of help). A module offers add_arguments(parser) and run(args) -> exit status.
COMMANDS = {
    "doctor": ("sspyr_mm.cli.doctor", "check this machine: versions, compiled ops, CUDA, data; with remedies"),
    "toy-scenes": ("sspyr_mm.cli.toy_scenes", "draw a labelled data set of multi-object scenes (COCO and VOC layout)"),
    "pack": ("sspyr_mm.cli.pack", "pack images into shards that training streams, from a disk or an object store"),
    "export": ("sspyr_mm.cli.export", "write the backbone of a checkpoint of any known format for other programs"),
    "inspect": ("sspyr_mm.cli.inspect", "show format, architecture and contents of a checkpoint of any known format"),
    "health": (
        "sspyr_mm.cli.health",
        "report what a pre-training checkpoint has learned, without labels: prototypes, embeddings, features",
    ),
    "atlas": (
        "sspyr_mm.cli.atlas",
        "show what the prototypes of a checkpoint have learned: a page, a figure and a table",
    ),
    "report": ("sspyr_mm.cli.report", "write a page on training runs: curves, health, settings; several are compared"),
    "embed": ("sspyr_mm.cli.embed", "write the features of images, and of cells in them, for other programs"),
    "search": ("sspyr_mm.cli.search", "find the nearest images, or cells of images, among features of `embed`"),
    "evaluate": (
        "sspyr_mm.cli.evaluate",
        "classification, detection and segmentation protocols on checkpoints of any known format",
    ),
    "results": ("sspyr_mm.cli.results", "tables and plots of the results of `evaluate`, next to published figures"),
    "reproduce": ("sspyr_mm.cli.reproduce", "pre-train and evaluate every system of a table of the paper"),
    "bench": ("sspyr_mm.cli.bench", "measure the speed of data loading, augmentation and training"),
    "compare": (
        "sspyr_mm.cli.compare",
        "compare checkpoints on your labelled images, with intervals of the differences",
    ),
    "probe": ("sspyr_mm.cli.probe", "linear probe of checkpoints (and of a random backbone) on a labelled set"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 for success, 2 for wrong input, 130 after an interrupt."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m sspyr_mm", description="Tools for self-supervised pre-training.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = argv[0] if argv else ""
    try:
        for name, (module, text) in COMMANDS.items():
            sub = subparsers.add_parser(name, help=text, description=text)
            if command == name:
                importlib.import_module(module).add_arguments(sub)
        args = parser.parse_args(argv)
        if command != "doctor":  # doctor reports more, and continues
            check_versions()
        for module in getattr(args, "custom_import", ()):
            _import_custom(module)
        with _interrupted_by_sigterm():
            return importlib.import_module(COMMANDS[command][0]).run(args)
    except (ImportError, ValueError, OSError) as error:  # wrong input: the message names the remedy
        # The message of a data loader worker's error contains a traceback.
        message = getattr(error, "summary", error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{message}: free disk space, and run the same command again"
        print(f"{parser.prog} {command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # what is complete is kept, the rest removed
        print(f"\n{parser.prog} {command}: interrupted; run the same command again", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Raises KeyboardInterrupt on SIGTERM, as on Ctrl-C, so that commands remove what is incomplete."""
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a forked worker ends at once
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _import_custom(module: str) -> None:
    """Imports a user's module; its prints go to stderr, apart from the output of the command."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(module)
    except Exception as error:  # importing a module can raise anything
        raise ValueError(
            f"--custom-import {module}: {type(error).__name__}: {error}; give the name of a module that "
            "Python can import from the current folder or PYTHONPATH, such as my_package.my_backbone"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
