"""Hooks that log a run: losses without waiting for the device, throughput, and a progress bar."""

import time
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from sspyr_mm.engine.hooks.model_access import images_per_iteration, is_line_due, log_interval
from sspyr_mm.machine import cores_per_process

__all__ = ["DeferredRuntimeInfoHook", "ProgressBarHook", "ThroughputHook"]

_RATIO = "train/ce_ratio_"
_WINDOW = 10
_MAX_REPORTS = 2
"""Epochs in which slow data are reported; later ones would repeat it."""


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which reads losses from the device only when a log line is due.

    mmengine reads every loss in every step: with three scales, the host waits for the device nine times per step and
    queues no work in the meantime. This hook keeps the losses on the device and reads those of all steps since the last
    log line at once. The message hub, and so the log, receives the same values.

    The reads take place before every line of ``LoggerHook``, at the end of an epoch and before a checkpoint is saved.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, Tensor]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keeps the losses of the step; reads all of them if a line is due."""
        self._pending += [(f"train/{name}", value.detach()) for name, value in (outputs or {}).items()]
        if is_line_due(runner, batch_idx) or self.is_last_train_iter(runner):
            self.flush(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads the kept losses, since a checkpoint contains the log's history."""
        if self._pending:
            self.flush(runner)
            checkpoint["message_hub"] = runner.message_hub.state_dict()

    def flush(self, runner: Runner) -> None:
        """Passes all kept losses to the message hub; the host waits for the device once."""
        if self._pending:
            names, values = zip(*self._pending, strict=True)
            self._pending.clear()
            for name, value in zip(names, torch.stack(values).tolist(), strict=True):
                runner.message_hub.update_scalar(name, value)


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Adds ``images_per_s`` (of all processes) and ``data_wait`` to the log, and reports remedies for slow data.

    ``data_wait`` is the percentage of this process's time spent waiting for its loader. Both are means since the last
    log line.

    Args:
        max_wait: Percentage above which the remedies are logged, in the first two epochs in which it is exceeded. The
            first log line of each epoch is ignored, since workers start then; if an epoch has one line only, only that
            of the first epoch is ignored.
    """

    priority = "NORMAL"  # after IterTimerHook, which the runner registers first; before LoggerHook

    def __init__(self, max_wait: float = 10.0) -> None:
        if not 0 < max_wait <= 100:
            raise ValueError(f"max_wait must be in (0, 100] percent, got {max_wait}")
        self.max_wait = max_wait
        self._reported: set[int] = set()
        self._first_epoch = 0

    def before_train(self, runner: Runner) -> None:
        """Stores the epoch in which the workers start."""
        self._first_epoch = runner.epoch

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Adds both values when a line is due."""
        if not is_line_due(runner, batch_idx):
            return
        hub, loader, interval = runner.message_hub, runner.train_dataloader, log_interval(runner)
        count = batch_idx % interval + 1
        seconds = hub.get_scalar("train/time").mean(count)
        waited = 100 * hub.get_scalar("train/data_time").mean(count) / seconds
        hub.update_scalar("train/images_per_s", images_per_iteration(runner) / seconds)
        hub.update_scalar("train/data_wait", waited)
        has_other_lines = len(loader) > interval
        workers_started = batch_idx < interval and (has_other_lines or runner.epoch == self._first_epoch)
        may_report = runner.epoch not in self._reported and len(self._reported) < _MAX_REPORTS
        if waited > self.max_wait and not workers_started and may_report:
            self._reported.add(runner.epoch)
            runner.logger.warning(_remedy(loader.num_workers, waited))


def _remedy(num_workers: int, waited: float) -> str:
    cores = cores_per_process()
    first = f"Raise train_dataloader.num_workers to {cores}, or reduce" if num_workers < cores else "Reduce"
    return (
        f"Training waits for images {waited:.0f} % of the time. Workers: {num_workers}, cores: {cores} per process. "
        f"{first} photographs that are much larger than the regions cut from them (`python -m sspyr_mm bench --images "
        "DIR` measures a worker's time per image). If that does not help, storage is slow: copy the images to a local "
        "disk, or pack them into shards and stream those (`python -m sspyr_mm pack`)."
    )


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows a progress bar with each scale's loss in units of ln K; without a terminal, one line per epoch.

    In these units, 1.00 means that nothing is learned; lower is better. On the main process only.
    """

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None
        self._since = 0.0

    def before_train(self, runner: Runner) -> None:
        """Opens the bar."""
        console = Console()
        if not is_main_process() or not console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[ratios]}"),
            console=console,
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=runner.max_iters, completed=runner.iter, epoch="", ratios="")

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the clock of the epoch."""
        self._since = time.monotonic()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Advances the bar."""
        if self._bar is not None:
            epoch = f"{runner.epoch + 1}/{runner.max_epochs}"
            self._bar.update(self._task, completed=runner.iter + 1, epoch=epoch, ratios=_ratios(runner))

    def after_train_epoch(self, runner: Runner) -> None:
        """Prints the line of the epoch if there is no bar."""
        if self._bar is None and is_main_process():
            seconds = time.monotonic() - self._since
            print(f"epoch {runner.epoch + 1}/{runner.max_epochs}  {seconds:.0f} s  {_ratios(runner)}", flush=True)

    def after_run(self, runner: Runner) -> None:
        """Closes the bar and releases the terminal; also called when training is interrupted."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _ratios(runner: Runner) -> str:
    """Formats means of the last logged iterations; reading the losses themselves would wait for the device."""
    scalars = runner.message_hub.log_scalars
    means = {
        name.removeprefix(_RATIO): buffer.mean(_WINDOW) for name, buffer in scalars.items() if name.startswith(_RATIO)
    }
    return "loss / ln K: " + "  ".join(f"{name} {value:.3f}" for name, value in means.items())
