"""Warns when a term of the loss learns nothing."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.model_access import model_of


@HOOKS.register_module()
class LossWatchHook(Hook):
    """Warns when a term of the loss stays at the value of equal embeddings.

    For the swapped prediction that is ln K: uniform codes, uniform predictions. Small batches can cause it: embeddings
    are nearly equal at first, Sinkhorn at a large epsilon turns them into uniform codes, and the network learns to
    predict those. For contrast with L negatives it is ln(1 + L).

    It reads the logged values named ``*_ratio_<term>``, which are 1 if nothing is learned, and asks
    ``head.stuck_advice(term)`` for the cause and remedy; None means that the value cannot be judged yet.

    Args:
        patience: Iterations for which a ratio may stay at 1, at the start or later, before it is reported.
        threshold: Lowest ratio of a loss to that value at which a term counts as stuck; the upper limit is as far
            above 1. Above it predictions are worse than uniform, as at the start, and a lower epsilon does not help.
        interval: Iterations between checks; a check waits for the device.
    """

    def __init__(self, patience: int = 500, threshold: float = 0.99, interval: int = 50) -> None:
        self.patience = patience
        self.threshold = threshold
        self.interval = interval
        self._stuck_since: dict[str, int] = {}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Checks the ratio of every term."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, value in (outputs or {}).items():
            if "_ratio_" in name:
                self._check(runner, name.partition("_ratio_")[2], float(value))

    def _check(self, runner: Runner, term: str, ratio: float) -> None:
        # DivergenceHook handles ratios that are not finite: loss scaling may skip the step.
        judge = getattr(model_of(runner).head, "stuck_advice", None)
        advice: str | None = judge(term) if judge else None
        if advice is None or not abs(ratio - 1) <= 1 - self.threshold:
            self._stuck_since.pop(term, None)
            return
        since = self._stuck_since.setdefault(term, max(0, runner.iter + 1 - self.interval))
        if runner.iter + 1 - since < self.patience:
            return
        self._stuck_since[term] = runner.iter + 1  # the next warning after another `patience` iterations
        runner.logger.warning(
            f"The loss of {term} has stayed at its value for equal embeddings for {self.patience} iterations (ratio "
            f"{ratio:.3f}): {advice}."
        )
