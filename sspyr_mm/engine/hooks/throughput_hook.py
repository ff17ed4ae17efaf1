"""How fast training is, and whether it waits for its data."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.model_access import log_interval
from sspyr_mm.machine import local_processes, num_cores


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Adds ``images_per_s`` (of all processes) and ``data_wait`` to the lines of the log, and says how to mend waiting.

    ``data_wait`` is the share of this process's time, in percent, in which it stood waiting for its loader. Both are
    means since the last line.

    Args:
        max_wait: Percent from which on the remedies are named, once an epoch. The first line of an epoch has no say:
            workers are started in it. Where an epoch has but one line, that holds for the run's first epoch only.
    """

    priority = "NORMAL"  # behind IterTimerHook, which the runner registers first; before LoggerHook

    def __init__(self, max_wait: float = 10.0) -> None:
        if not 0 < max_wait <= 100:
            raise ValueError(f"max_wait must be in (0, 100] percent, got {max_wait}")
        self.max_wait = max_wait
        self._interval = 1
        self._told_in_epoch = -1
        self._first_epoch = 0

    def before_train(self, runner: Runner) -> None:
        """Looks up how often lines are due."""
        self._interval = log_interval(runner)
        self._first_epoch = runner.epoch

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Adds the figures when a line is due."""
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if not (last or self.every_n_inner_iters(batch_idx, self._interval)):
            return
        hub = runner.message_hub
        count = batch_idx % self._interval + 1
        seconds = hub.get_scalar("train/time").mean(count)
        waited = 100 * hub.get_scalar("train/data_time").mean(count) / seconds
        hub.update_scalar("train/images_per_s", _images_per_step(runner) / seconds)
        hub.update_scalar("train/data_wait", waited)
        if (
            waited > self.max_wait
            and not self._workers_started(runner, batch_idx)
            and self._told_in_epoch != runner.epoch
        ):
            self._told_in_epoch = runner.epoch
            runner.logger.warning(_remedy(runner, waited))

    def _workers_started(self, runner: Runner, batch_idx: int) -> bool:
        """Whether a line tells of the start of workers more than of their pace."""
        has_others = len(runner.train_dataloader) > self._interval
        return batch_idx < self._interval and (has_others or runner.epoch == self._first_epoch)


def _images_per_step(runner: Runner) -> int:
    loader = runner.train_dataloader
    return (loader.batch_size or loader.batch_sampler.batch_size) * get_world_size()


def _remedy(runner: Runner, waited: float) -> str:
    workers = runner.train_dataloader.num_workers
    return (
        f"{waited:.0f} % of the time training waits for its images. Workers: {workers}, cores of this machine: "
        f"{num_cores()} "
        f"for {local_processes()} process(es). Raise train_dataloader.num_workers as long as there are cores; then "
        "shrink photographs that are much larger than the pyramid's regions (`python -m sspyr_mm bench --images DIR` "
        "measures what a worker's core takes of an image). Where more workers do not help, storage is slow: copy the "
        "images to a local disk, or pack them into shards and stream these (`python -m sspyr_mm pack`)."
    )
