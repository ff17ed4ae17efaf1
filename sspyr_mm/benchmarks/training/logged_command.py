"""Commands whose output goes to a log, and which are stopped by one signal."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sspyr_mm.benchmarks.training.process import check_status


def run_logged(what: str, command: Sequence[str], path: Path) -> None:
    """Runs a command and appends its output to a log.

    The command leads a process group of its own, so that a terminal's Ctrl-C does not reach it as well. The first
    SIGINT, SIGTERM or SIGHUP is passed on once, as SIGTERM: the command saves, or ends without a traceback if it is
    still importing. A second signal kills it.

    Raises:
        ChildProcessError: If the command fails; the message starts with ``what`` and holds the end of the log.
        KeyboardInterrupt: After a signal.
    """
    received: list[int] = []
    process: subprocess.Popen | None = None

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        if process is not None:
            _stop(process, kill=len(received) > 1)

    handled = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, pass_on) for number in handled}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "a") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if received:  # while it was starting
            _stop(process, kill=False)
        status = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        _stop(process, kill=True)  # what the command has left behind
        raise KeyboardInterrupt
    check_status(status, what, path)


def _stop(process: subprocess.Popen, *, kill: bool) -> None:
    if kill:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        print("Stopping; interrupt again to stop at once, without saving", file=sys.stderr, flush=True)
        process.terminate()
