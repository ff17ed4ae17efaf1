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
from dataclasses import dataclass, field
from pathlib import Path

from sspyr_mm.benchmarks.training.process import PATIENCE, check_status

_INTERVAL = 0.1  # seconds between polls of the processes
_SECOND = 0.5  # seconds after the first signal from which a further one is a second request


@dataclass(frozen=True)
class LoggedCommand:
    """A command."""

    what: str  # description
    command: list[str]
    log: Path  # to which its output is appended


@dataclass(frozen=True)
class _Run:
    """A running command and the rest of its chain."""

    command: LoggedCommand
    rest: Sequence[LoggedCommand]
    environment: Mapping[str, str]
    process: subprocess.Popen

    def send(self, number: int) -> None:
        """Sends a signal to the process group of the command; torchrun's workers have groups of their own."""
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
    traceback if they are still importing. A second signal, half a second later or more, kills them. Ctrl-Z pauses them
    as well. Any error ends them.

    Args:
        chains: Commands to run one after another.
        environments: Variables of each slot in which a chain runs, in addition to those of this process.
        announce: Called with each command before it starts.

    Returns:
        A message per command that failed, with the end of its log.

    Raises:
        KeyboardInterrupt: After a signal, or if a command was interrupted by another process.
    """
    waiting, free = deque(chain for chain in chains if chain), list(environments)
    running: list[_Run] = []
    failures: list[str] = []
    with _received_signals() as signals, _ended_on_error(running):
        while running or (waiting and not signals.stops):
            while waiting and free and not signals.stops:
                command, *rest = waiting.popleft()
                announce(command)
                try:
                    running.append(_start(command, rest, free[0]))
                    del free[0]
                except OSError as error:
                    failures.append(f"{command.what} did not start: {error}\n")
            time.sleep(_INTERVAL)
            _pass_on(signals, running)
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                free.append(run.environment)
                if signals.stops:
                    run.send(signal.SIGKILL)  # to remaining processes of the command
                try:
                    check_status(run.process.returncode, run.command.what, run.command.log)
                    if run.rest:
                        waiting.appendleft(run.rest)
                except ChildProcessError as error:
                    failures.append(f"{error}The command was: {shlex.join(run.command.command)}\n")
                    if (running or waiting) and not signals.stops:
                        _say(f"{run.command.what} failed; the others continue; log: {run.command.log}")
                except KeyboardInterrupt:
                    if not signals.stops:
                        signals.stops.append(time.monotonic())
        if signals.stops:
            for failure in failures:
                _say(failure)
            raise KeyboardInterrupt
    return failures


@dataclass
class _Signals:
    stops: list[float] = field(default_factory=list)  # times of those that ask to stop
    is_passed_on: bool = False
    pause: bool = False

    def receive(self, number: int, _: object) -> None:
        if number == signal.SIGTSTP:
            self.pause = True
        else:
            self.stops.append(time.monotonic())


@contextmanager
def _received_signals() -> Iterator[_Signals]:
    """Collects signals in the block, in place of what they usually do; those that are ignored stay so."""
    signals = _Signals()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
    handled = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, signals.receive) for number in handled}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _ended_on_error(running: Sequence[_Run]) -> Iterator[None]:
    """Ends the commands that still run when an error leaves the block: each has a minute to save."""
    try:
        yield
    except BaseException:
        for run in running:
            run.process.terminate()
        for run in running:
            with suppress(subprocess.TimeoutExpired):
                run.process.wait(PATIENCE)
            run.send(signal.SIGKILL)
        raise


def _say(text: str) -> None:
    """Prints to stderr, unless nobody reads it any more: the terminal was closed."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


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


def _pass_on(signals: _Signals, running: Sequence[_Run]) -> None:
    """Pauses, stops or kills the commands, as the received signals ask."""
    if signals.pause:
        _pause(running)
        signals.pause = False
    if signals.stops and not signals.is_passed_on:
        signals.is_passed_on = True
        for run in running:
            run.process.terminate()
        _say("Stopping; interrupt again to stop at once, without saving")
    if signals.stops and signals.stops[-1] - signals.stops[0] >= _SECOND:
        for run in running:
            run.send(signal.SIGKILL)


def _pause(running: Sequence[_Run]) -> None:
    """Stops this process and the commands until the shell continues this process."""
    for run in running:
        run.send(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    for run in running:
        run.send(signal.SIGCONT)
