"""Ends a run in which a process or a data worker no longer answers."""

import multiprocessing
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as torch_dist
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch.utils.data import dataloader

from sspyr_mm.engine.hooks.model_access import run_within

_TICK = 1.0
"""Interval in seconds at which a rank reports its step to the others, and checks its own."""


@HOOKS.register_module()
class StallHook(Hook):
    """Ends training when no iteration has finished for a time, and names the process that others wait for.

    Otherwise the processes of a run would wait for one that hangs until the time-out of the process group, half an
    hour with gloo. Validation does not count, nor the time during which the whole run is stopped, as by Ctrl-Z. Costs
    nothing in an iteration: two threads do the work, over the store of the process group.

    Args:
        seconds: Time without a finished iteration, > 0. The first one may include compilation.

    Raises:
        ValueError: If ``seconds`` is not positive.
    """

    priority = "VERY_HIGH"

    def __init__(self, seconds: float = 540.0) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be > 0, got {seconds}; the default is 540")
        self.seconds = seconds
        self._active = False
        self._step, self._waited = 0, 0.0
        self._ranks: dict[int, str] = {}  # last report of each rank
        self._silent: dict[int, float] = {}  # seconds since the last new report of each rank

    def before_run(self, runner: Runner) -> None:
        """Watches while the training loop runs; mmengine calls no hook that could end it where a run fails."""
        run_within(runner, self._watching())

    def before_train_epoch(self, runner: Runner) -> None:
        """Begins to count, in loops of epochs: others may skip the images of many past iterations first."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._mark(runner.iter + 1)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Counts, also after a validation between iterations."""
        self._mark(runner.iter + 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Notes that an iteration has finished."""
        self._mark(runner.iter + 2)

    def after_train_epoch(self, runner: Runner) -> None:
        """Pauses: saving and validation may take long."""
        self._active = False

    def before_val(self, runner: Runner) -> None:
        """Pauses."""
        self._active = False

    def _mark(self, step: int) -> None:
        self._step, self._waited, self._active = step, 0.0, True

    @contextmanager
    def _watching(self) -> Iterator[None]:
        done = threading.Event()
        threading.Thread(target=self._watch, args=(done,), daemon=True).start()
        if get_world_size() > 1:
            # A thread of its own: the store does not answer if the process that keeps it hangs.
            threading.Thread(target=self._exchange, args=(done,), daemon=True).start()
        try:
            yield
        finally:
            self._active = False
            done.set()

    def _watch(self, done: threading.Event) -> None:
        last = time.monotonic()
        while not done.wait(_TICK):
            now = time.monotonic()
            # Not more than two intervals, or a run that was stopped as a whole would end when it continues.
            passed, last = min(now - last, 2 * _TICK), now
            for rank in list(self._silent):
                self._silent[rank] += passed
            if self._active:
                self._waited += passed
            if self._waited > self.seconds:
                self._end()

    def _exchange(self, done: threading.Event) -> None:
        store = torch_dist.PrefixStore("sspyr_mm/stall", torch_dist.distributed_c10d._get_default_store())
        rank, beat = get_rank(), 0
        with suppress(RuntimeError):  # the store has ended with its process
            while beat == 0 or not done.wait(_TICK):
                beat += 1
                store.set(str(rank), f"{self._step} {os.getpid()} {platform.node()} {beat} {_doing()}")
                # Less often with many ranks: one process answers all of them.
                for other in range(get_world_size() if beat % max(1, get_world_size() // 8) == 0 else 0):
                    if store.check([str(other)]) and (report := store.get(str(other)).decode()) != self._ranks.get(
                        other
                    ):
                        self._ranks[other], self._silent[other] = report, 0.0

    def _end(self) -> None:
        """Reports the stall and ends this process; torchrun and Slurm then end the others."""
        try:
            print(f"train: {self._reason()}. --resume continues from the last checkpoint", file=sys.stderr, flush=True)
            for child in multiprocessing.active_children():  # a worker that is stopped would remain
                child.kill()
        finally:
            os._exit(1)

    def _reason(self) -> str:
        world_size, ranks = get_world_size(), dict(self._ranks)
        found = [(False, -1, f"rank {rank} has never answered") for rank in range(world_size) if rank not in ranks]
        for rank, report in ranks.items():
            step, pid, host, _, doing = report.split(" ", 4)
            silent = self._silent[rank] > max(3 * _TICK, self.seconds / 4)
            state = f"has not answered for {self._silent[rank]:.0f} s" if silent else doing
            found.append((not silent, int(step), f"rank {rank} (process {pid} on {host}) {state} in iteration {step}"))
        own = f"process {os.getpid()} on {platform.node()} {_doing()} in iteration {self._step}"
        first = min(found)[2] if world_size > 1 else own
        workers = [f"{child.pid}{_state(child.pid)}" for child in multiprocessing.active_children()]
        of = f"; data workers of this process: {', '.join(workers)}" if workers else ""
        return f"No iteration has finished for {self.seconds:.0f} s: {first}{of}"


def _doing() -> str:
    """Returns what the main thread does."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_filename == dataloader.__file__:
            return "waits for its data"
        frame = frame.f_back
    return "computes"


def _state(pid: int | None) -> str:
    """Returns ' (stopped)' for a process that a signal has stopped; Linux only."""
    with suppress(OSError):
        return " (stopped)" * (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    return ""
