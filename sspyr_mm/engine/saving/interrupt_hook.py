"""Saves a checkpoint on Ctrl-C or SIGTERM, so that an interrupt loses no training."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.divergence_hook import check_state
from sspyr_mm.engine.hooks.model_access import accumulative_counts, run_within
from sspyr_mm.engine.saving.run_checkpoints import POINTER
from sspyr_mm.files import write_text

_FILE = "interrupted.pth"
_MAX_STEPS = 100
"""Maximum steps between two checks, however fast the steps are: the next ones may take longer."""


@HOOKS.register_module()
class InterruptHook(Hook):
    """On Ctrl-C or SIGTERM (Slurm, torchrun) saves a checkpoint after the current iteration and exits.

    The exit status is 130. ``--resume`` continues from that iteration. A second signal ends the program at once, as
    without this hook.

    The checkpoint of an earlier stop is removed once the run has a later one.

    Args:
        seconds: Approximate interval, > 0, at which several processes check together whether one of them received a
            signal. torchrun and Slurm wait 30 s before they kill. A single process checks after every iteration.

    Raises:
        ValueError: If ``seconds`` is not positive.
    """

    # Last, with CheckpointHook: schedulers must have stepped and prototypes be normalised.
    priority = "VERY_LOW"

    def __init__(self, seconds: float = 2.0) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be > 0, got {seconds}; the default is 2")
        self.seconds = seconds
        self._requested = False
        self._interval = self._steps_left = 1  # in steps, the same on every rank
        self._last_check: float | None = None
        self._previous: dict[int, Any] = {}
        self._pid = os.getpid()
        self._last: str | None = None

    def before_run(self, runner: Runner) -> None:
        """Handles signals while the training loop runs; mmengine calls no hook that could end it where a run fails."""
        run_within(runner, self._handling_signals())

    def before_train(self, runner: Runner) -> None:
        """Notes the last checkpoint of training."""
        self._last = runner.message_hub.runtime_info.get("last_ckpt")

    def after_train_epoch(self, runner: Runner) -> None:
        """Removes the checkpoint of an earlier stop once training has saved a later one."""
        self._remove_stale(runner)

    def _remove_stale(self, runner: Runner) -> None:
        last = runner.message_hub.runtime_info.get("last_ckpt")
        if last != self._last and is_main_process():
            Path(runner.work_dir, _FILE).unlink(missing_ok=True)
        self._last = last

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Saves a checkpoint and exits after a signal; a state that is not finite is reported instead of saved."""
        self._remove_stale(runner)  # training may save within epochs
        # Without AccumulationHook, a checkpoint holds no accumulated gradients: stop only after a full step.
        mid_step = (runner.iter + 1) % accumulative_counts(runner) != 0
        if mid_step or not self._agreed(runner):
            return
        check_state(runner, runner.iter + 1)
        if is_main_process():
            self._save(runner)
        barrier()  # torchrun ends the other processes once one exits: wait until the file is complete
        runner.call_hook("after_run")  # lets hooks release resources such as the terminal
        sys.exit(130)

    def _save(self, runner: Runner) -> None:
        target = os.path.join(runner.work_dir, _FILE)
        try:
            runner.save_checkpoint(runner.work_dir, _FILE, by_epoch=False)
            write_text(os.path.join(runner.work_dir, POINTER), target)
        except OSError as error:
            last = runner.message_hub.runtime_info.get("last_ckpt")
            stands = f"--resume continues from {last}" if last else "the run has no checkpoint"
            runner.logger.error(f"Stopped; {target} could not be written ({error}): {stands}.")
            return
        runner.logger.info(f"Stopped; {target} holds iteration {runner.iter + 1}. Add --resume to continue from it.")

    def _agreed(self, runner: Runner) -> bool:
        """Returns whether to stop, the same on every rank. Collective at intervals that all ranks know."""
        if get_world_size() == 1:
            return self._requested
        self._steps_left -= 1
        if self._steps_left > 0:
            return False
        # One collective for both: whether to stop, and the number of steps to the next check by rank 0's clock.
        sent = [int(self._requested), self._next_interval() if is_main_process() else 0]
        message = torch.tensor(sent, device=next(runner.model.parameters()).device)
        all_reduce(message, "max")
        stop, self._interval = message.tolist()
        self._steps_left = self._interval
        return bool(stop)

    def _next_interval(self) -> int:
        now, last = time.monotonic(), self._last_check
        self._last_check = now
        if last is None:
            return 1
        return int(min(max(self.seconds * self._interval / max(now - last, 1e-6), 1), _MAX_STEPS))

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        self._requested = False
        # Python delivers signals to the main thread only. The loop of a second run is wrapped twice.
        if threading.current_thread() is threading.main_thread() and not self._previous:
            self._pid = os.getpid()
            self._previous = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a process forked from this one, such as a loader's worker
            return
        self._requested = True
        self._restore()
        print(
            "Saving a checkpoint after this iteration, then stopping; signal again to stop at once without it.",
            file=sys.stderr,
        )

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
