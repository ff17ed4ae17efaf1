"""Warns when a scale learns nothing."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.model_access import head_of


@HOOKS.register_module()
class LossWatchHook(Hook):
    """Warns when the swapped prediction of a scale stays at ln K: uniform codes, uniform predictions.

    Small batches can cause this: embeddings are nearly equal at first, Sinkhorn at a large epsilon turns them into
    uniform codes, and the network learns to predict those.

    Args:
        patience: Iterations for which a ratio may stay at 1, at the start or later, before it is reported.
        threshold: Lowest ratio of cross-entropy to ln K at which a scale counts as stuck; the upper limit is as far
            above 1. Above it predictions are worse than uniform, as at the start, and a lower epsilon does not help.
        interval: Iterations between checks; a check waits for the device.
    """

    def __init__(self, patience: int = 500, threshold: float = 0.99, interval: int = 50) -> None:
        self.patience = patience
        self.threshold = threshold
        self.interval = interval
        self._stuck_since: dict[str, int] = {}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Checks the ratio of every scale."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, value in (outputs or {}).items():
            if name.startswith("ce_ratio_"):
                self._check(runner, name.removeprefix("ce_ratio_"), float(value))

    def _check(self, runner: Runner, scale: str, ratio: float) -> None:
        # DivergenceHook handles ratios that are not finite: loss scaling may skip the step.
        if not abs(ratio - 1) <= 1 - self.threshold:
            self._stuck_since.pop(scale, None)
            return
        since = self._stuck_since.setdefault(scale, max(0, runner.iter + 1 - self.interval))
        if runner.iter + 1 - since < self.patience:
            return
        self._stuck_since[scale] = runner.iter + 1  # the next warning after another `patience` iterations
        epsilon = head_of(runner).assigner.epsilon
        runner.logger.warning(
            f"The loss of {scale} has stayed at ln K for {self.patience} iterations (ratio {ratio:.3f}): its codes are "
            f"uniform and it learns nothing. Set model.head.assigner.epsilon lower (now {epsilon:g}; "
            f"try {min(0.01, epsilon / 2):g}), use AdamW with lr 0.003 (configs/_base_/schedules/adamw.py), or "
            f"a larger batch. See docs/small_batches.md."
        )
