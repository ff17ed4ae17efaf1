"""A stop at any time costs nothing."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

_FILE = "interrupted.pth"


@HOOKS.register_module()
class InterruptHook(Hook):
    """On Ctrl-C or SIGTERM (Slurm, torchrun) saves a checkpoint after the iteration at hand, then ends the program.

    The exit status is 130. ``--resume`` goes on from the very iteration. A second signal ends the program at once, as
    without this hook.

    Args:
        interval: With several processes, iterations between the looks they take together whether one of them was told
            to stop; one process looks after every iteration.
    """

    # Last, with CheckpointHook: schedulers must have stepped and prototypes be normalised.
    priority = "VERY_LOW"

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self._requested = False
        self._looks = 0
        self._previous: dict[int, Any] = {}
        self._pid = os.getpid()

    def before_train(self, runner: Runner) -> None:
        """Starts to listen; outside of the main thread, where Python has no signals, there is nothing to hear."""
        self._requested = False
        if threading.current_thread() is not threading.main_thread():
            return
        self._pid = os.getpid()
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.signal(number, self._on_signal)
            # A run that failed in this process (a notebook, say) has left its own behind: go back beyond it.
            while isinstance(owner := getattr(previous, "__self__", None), InterruptHook):
                previous = owner._previous.get(number, signal.SIG_DFL)
            self._previous[number] = previous

    def after_train(self, runner: Runner) -> None:
        """Stops to listen."""
        self._restore()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Saves and ends the program if it was asked to."""
        # Gradients that are being accumulated are in no checkpoint: not between two steps.
        mid_step = (runner.iter + 1) % getattr(runner.optim_wrapper, "_accumulative_counts", 1) != 0
        if mid_step or not self._agreed(runner):
            return
        if is_main_process():
            partial = f"{_FILE}.partial"
            runner.save_checkpoint(runner.work_dir, partial, by_epoch=False)
            target = os.path.join(runner.work_dir, _FILE)
            os.replace(os.path.join(runner.work_dir, partial), target)
            pointer = os.path.join(runner.work_dir, "last_checkpoint")
            with open(f"{pointer}.partial", "w") as file:
                file.write(target)
            os.replace(f"{pointer}.partial", pointer)
            runner.logger.info(
                f"Stopped; {target} holds iteration {runner.iter + 1}. Add --resume to go on from it."
            )
        barrier()  # torchrun ends the others once one is gone: not before the file is whole
        self._restore()
        runner.call_hook("after_run")  # hooks that hold something, a terminal say, let go of it
        sys.exit(130)

    def _agreed(self, runner: Runner) -> bool:
        if get_world_size() == 1:
            return self._requested
        self._looks += 1
        if self._looks % self.interval:
            return False
        device = next(runner.model.parameters()).device
        flag = torch.tensor(int(self._requested), device=device)
        all_reduce(flag, "max")
        return bool(flag)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a process forked from this one, a loader's worker say
            return
        self._requested = True
        self._restore()
        print(
            "Stopping after this iteration, with a checkpoint; once more to stop without.",
            file=sys.stderr,
        )

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
