"""Checks of a config against the data and the number of processes, before the first step."""

from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import LinearParamScheduler
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch.utils.data import DataLoader

from sspyr_mm.datasets.unlabelled import data_notices
from sspyr_mm.engine.hooks.model_access import accumulative_counts, model_of

_RUN = "ssprl_run"
"""Key in the message hub, which is part of the checkpoint: length and batch size that a schedule is made for."""


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Rejects a run without a full batch; reports unused files, and images without content or detail.

    It also reports prototypes, queues and batch sizes that do not match the data, and a warm-up as long as the run.
    Each message names the setting to change.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Runs the checks; raises ValueError if there is no full batch or the resumed run has another schedule."""
        loader = runner.train_dataloader
        check_full_batch(loader)
        num_images, batch = count_images(loader), loader.batch_size * get_world_size()
        model: Any = model_of(runner)
        region = max(group.region for group in model.views.groups)
        messages = data_notices(loader.dataset, region) if get_rank() == 0 else []
        messages += model.size_messages(num_images)
        for message in messages:
            runner.logger.warning(message)
        check_batch(runner)
        for message in _warm_up_messages(runner):
            runner.logger.warning(message)
        _check_resumed(runner, {"images": num_images, "batch": batch, "epochs": runner.max_epochs})


def check_batch(runner: Runner) -> None:
    """Warns if the learning rate is for another number of images per step."""
    loader, scale = runner.train_dataloader, runner.cfg.get("auto_scale_lr") or {}
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if size is not None and (message := batch_message(scale, size, accumulative_counts(runner))):
        runner.logger.warning(message)


def _warm_up_messages(runner: Runner) -> list[str]:
    """Reports schedulers that raise a value until after the end of the run."""
    messages = []
    schedulers = runner.param_schedulers
    for number, scheduler in enumerate(schedulers if isinstance(schedulers, list) else ()):
        unit, length = ("epochs", runner.max_epochs) if scheduler.by_epoch else ("iterations", runner.max_iters)
        rises = isinstance(scheduler, LinearParamScheduler) and scheduler.start_factor < scheduler.end_factor
        if rises and (end := scheduler.begin + scheduler.total_iters + 1) >= length:
            messages.append(
                f"The {scheduler.param_name} warms up for {end} {unit}, and the run has {length}: too short for the "
                f"recipe. Train longer (--cfg-options train_cfg.max_epochs=N), or lower param_scheduler[{number}].end"
            )
    return messages


def count_images(loader: DataLoader) -> int:
    """Returns the number of images over all processes; the length of a streamed data set counts one process only."""
    dataset: Any = loader.dataset
    return getattr(dataset, "num_images", None) or len(dataset)


def check_full_batch(loader: DataLoader) -> None:
    """Raises ValueError if an epoch has no iteration.

    mmengine's schedulers that count iterations reject an empty epoch before any hook runs, and their message does not
    mention the data. Therefore tools/train.py calls this before training.
    """
    if len(loader) == 0:
        raise ValueError(
            f"{count_images(loader)} images do not fill one batch of {loader.batch_size} on each of {get_world_size()} "
            "process(es): set train_dataloader.batch_size lower (--cfg-options train_dataloader.batch_size=N)"
        )


def _check_resumed(runner: Runner, run: dict[str, int]) -> None:
    """Rejects another run's schedule: position, learning rate and order of images would be wrong."""
    previous = runner.message_hub.runtime_info.get(_RUN)
    if runner.iter > 0 and previous is not None and previous != run:
        raise ValueError(
            f"The checkpoint is of a run with {previous}, but this run has {run}; the schedules differ. Resume with "
            "the old settings (batch: over all processes), or start a new run from its weights: in another --work-dir, "
            "without --resume, --cfg-options load_from=CHECKPOINT"
        )
    runner.message_hub.update_info(_RUN, run)


def batch_message(auto_scale_lr: Mapping[str, Any], batch_size: int, accumulated: int) -> str | None:
    """Returns a message if the images per optimizer step are not those that the learning rate is for.

    ``batch_size`` counts the images per process and iteration, ``accumulated`` the iterations per step.
    """
    processes, base = get_world_size(), auto_scale_lr.get("base_batch_size")
    batch = batch_size * processes * accumulated
    if base is None:
        return None
    if auto_scale_lr.get("enable", False):
        if accumulated == 1:
            return None
        return (
            f"The learning rate is scaled to batches of {batch_size * processes}, but a step accumulates "
            f"{accumulated} of them. If base_batch_size={base} counts the images of a step, set "
            f"auto_scale_lr.base_batch_size={max(1, base // accumulated)} ({base} / {accumulated})."
        )
    if batch == base:
        return None
    times = f" x {accumulated} accumulated" if accumulated > 1 else ""
    size, rest = divmod(base, processes * accumulated)
    keeps = f"set train_dataloader.batch_size={size}" if not rest else "change the number of processes"
    scaled = "--auto-scale-lr"
    if accumulated > 1:  # mmengine counts the images of an iteration
        scaled += f" and auto_scale_lr.base_batch_size={max(1, base // accumulated)}"
    return (
        f"The learning rate is for {base} images per step; this run uses {batch_size} x {processes} process(es){times}"
        f" = {batch}. To keep the recipe, {keeps}; to scale the learning rate instead, set {scaled}."
    )
