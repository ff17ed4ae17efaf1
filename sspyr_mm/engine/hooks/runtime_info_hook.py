"""Losses for the log, without waiting for the device in every step."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from sspyr_mm.engine.hooks.model_access import log_interval


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which reads losses from the device only when a line of the log is due.

    mmengine reads every loss in every step: nine times in a step of three scales the host waits until the device has
    done all that it was given, and hands on no work meanwhile. This hook keeps them where they are and reads those of
    all steps since the last line at once. What arrives in the message hub, and so in the log, is the same.

    Reads, together, before every line of ``LoggerHook``, at the end of an epoch and before a checkpoint is written.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._pending: list[Tensor] = []
        self._interval = 1

    def before_train(self, runner: Runner) -> None:
        """Looks up how often lines are due."""
        super().before_train(runner)
        self._interval = log_interval(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keeps the step's losses; reads all of them if a line is due."""
        if outputs:
            names = tuple(outputs)
            if names != self._names:
                self.flush(runner)
                self._names = names
            self._pending.append(torch.stack([value.detach() for value in outputs.values()]))
        if (
            self.every_n_inner_iters(batch_idx, self._interval)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or self.is_last_train_iter(runner)
        ):
            self.flush(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads what is kept: a checkpoint holds the log's history."""
        if self._pending:
            self.flush(runner)
            checkpoint["message_hub"] = runner.message_hub.state_dict()

    def flush(self, runner: Runner) -> None:
        """Hands all that is kept to the message hub: the host waits for the device, once."""
        if not self._pending:
            return
        rows = torch.stack(self._pending).tolist()
        self._pending.clear()
        for row in rows:
            for name, value in zip(self._names, row, strict=True):
                runner.message_hub.update_scalar(f"train/{name}", value)
