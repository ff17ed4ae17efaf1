"""A bar for people who watch."""

import time
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_RATIO = "train/ce_ratio_"
_WINDOW = 10


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows a progress bar with each scale's loss in units of ln K; without a terminal, one line per epoch.

    Units of ln K: 1.00 is a network that predicts nothing, lower is better. On the main process only.
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
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[ratios]}"),
        )
        self._bar = Progress(*columns, console=console)
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=runner.max_iters, completed=runner.iter, epoch="", ratios=""
        )

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the epoch's clock."""
        self._since = time.monotonic()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Moves the bar."""
        if self._bar is not None:
            epoch = f"{runner.epoch + 1}/{runner.max_epochs}"
            self._bar.update(
                self._task, completed=runner.iter + 1, epoch=epoch, ratios=_ratios(runner)
            )

    def after_train_epoch(self, runner: Runner) -> None:
        """Prints the epoch's line where there is no bar."""
        if self._bar is None and is_main_process():
            seconds = time.monotonic() - self._since
            print(
                f"epoch {runner.epoch + 1}/{runner.max_epochs}  {seconds:.0f} s  {_ratios(runner)}",
                flush=True,
            )

    def after_run(self, runner: Runner) -> None:
        """Closes the bar."""
        self.close()

    def close(self) -> None:
        """Gives the terminal back; also called when training is interrupted."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _ratios(runner: Runner) -> str:
    """Of the last iterations that the log knows of: reading the losses themselves would wait for the device."""
    scalars = runner.message_hub.log_scalars
    means = {
        name.removeprefix(_RATIO): buffer.mean(_WINDOW)
        for name, buffer in scalars.items()
        if name.startswith(_RATIO)
    }
    return "loss / ln K: " + "  ".join(f"{name} {value:.3f}" for name, value in means.items())
