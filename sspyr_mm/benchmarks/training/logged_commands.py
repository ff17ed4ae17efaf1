"""Commands whose output goes to logs: several at the same time, all stopped by one signal."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sspyr_mm.benchmarks.training.process import check_status

_INTERVAL = 0.1  # seconds between two looks at the processes


@dataclass(frozen=True)
class LoggedCommand:
    """A command."""

    what: str  # description
    command: list[str]
    log: Path  # to which its output is appended


@dataclass(frozen=True)
class _Run:
    """A command that runs, and what follows it."""

    command: LoggedCommand
    rest: Sequence[LoggedCommand]
    environment: Mapping[str, str]
    process: subprocess.Popen

    def send(self, number: int) -> None:
        """Sends a signal to all processes of the command."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def run_logged(
    chains: Sequence[Sequence[LoggedCommand]],
    environments: Sequence[Mapping[str, str]],
    announce: Callable[[LoggedCommand], None],
) -> list[str]:
    """Runs chains of commands, as many chains at the same time as there are environments.

    A command that fails ends its own chain. Each leads a process group of its own, so that a terminal's Ctrl-C does not
    reach it as well. The first SIGINT, SIGTERM or SIGHUP is passed on once, as SIGTERM: commands save, or end without a
    traceback if they are still importing. A second signal kills them. Ctrl-Z pauses them as well.

    Args:
        chains: Commands to run one after another.
        environments: Variables of each place in which a chain runs, in addition to those of this process.
        announce: Called with each command before it starts.

    Returns:
        A message per command that failed, with the end of its log.

    Raises:
        KeyboardInterrupt: After a signal, or if a command was interrupted by another process.
    """
    waiting, free = deque(chain for chain in chains if chain), list(environments)
    running: list[_Run] = []
    failures: list[str] = []
    with _received_signals() as received:
        num_passed_on = 0
        while running or (waiting and not received):
            while waiting and free and not received:
                command, *rest = waiting.popleft()
                announce(command)
                try:
                    running.append(_start(command, rest, free[0]))
                    del free[0]
                except OSError as error:
                    failures.append(f"{command.what} did not start: {error}\n")
            time.sleep(_INTERVAL)
            while signal.SIGTSTP in received:
                received.remove(signal.SIGTSTP)
                _pause(running)
            if len(received) > num_passed_on:
                num_passed_on = len(received)
                _stop(running, kill=num_passed_on > 1)
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                free.append(run.environment)
                if received:
                    run.send(signal.SIGKILL)  # to what the command has left behind
                try:
                    check_status(run.process.returncode, run.command.what, run.command.log)
                    if run.rest:
                        waiting.appendleft(run.rest)
                except ChildProcessError as error:
                    failures.append(f"{error}The command was: {shlex.join(run.command.command)}\n")
                    if running or waiting:
                        print(f"{run.command.what} failed; the others continue", file=sys.stderr, flush=True)
                except KeyboardInterrupt:
                    received.extend([signal.SIGTERM] * (not received))
        if received:
            raise KeyboardInterrupt
    return failures


@contextmanager
def _received_signals() -> Iterator[list[int]]:
    """Collects signals in the block, in place of what they usually do; those that are ignored stay so."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
    handled = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, lambda number, _: received.append(number)) for number in handled}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _start(command: LoggedCommand, rest: Sequence[LoggedCommand], environment: Mapping[str, str]) -> _Run:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with open(command.log, "a") as log:
        process = subprocess.Popen(
            command.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    return _Run(command, rest, environment, process)


def _pause(running: Sequence[_Run]) -> None:
    """Stops this process and the commands until the shell continues this process."""
    for run in running:
        run.send(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    for run in running:
        run.send(signal.SIGCONT)


def _stop(running: Sequence[_Run], *, kill: bool) -> None:
    if not kill:
        print("Stopping; interrupt again to stop at once, without saving", file=sys.stderr, flush=True)
    for run in running:
        if kill:
            run.send(signal.SIGKILL)
        else:
            run.process.terminate()
