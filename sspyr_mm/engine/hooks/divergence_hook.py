"""Ends a run whose loss is no number any more."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Raises where the loss is not finite: what would be measured afterwards is the figure of no network.

    Args:
        interval: Iterations between looks, the last iteration included; a look waits for the device.

    Raises:
        ValueError: If the interval is not positive.
    """

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f"interval must be >= 1 iteration, got {interval}")
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Tensor] | None = None,
    ) -> None:
        """Looks at the loss.

        Raises:
            FloatingPointError: If it is infinite or not a number.
        """
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        loss = (outputs or {}).get("loss")
        if loss is not None and not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {float(loss)} at iteration {runner.iter + 1}: training has diverged. Lower the learning "
                "rate (optim_wrapper.optimizer.lr), or clip gradients (optim_wrapper.clip_grad.max_norm=35)"
            )
