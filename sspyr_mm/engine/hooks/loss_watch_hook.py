"""Says so when a scale learns nothing."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.engine.hooks.model_access import head_of


@HOOKS.register_module()
class LossWatchHook(Hook):
    """Warns when the swapped prediction of a scale stays at ln K: uniform codes, uniform predictions.

    It is the trap of small batches: embeddings are nearly equal at first, Sinkhorn at a large epsilon turns them into
    uniform codes, and the network learns to predict those.

    Args:
        patience: Iterations a ratio may stay at 1 from the start or at any later time before it is reported.
        threshold: Ratio of cross-entropy to ln K from which on, up to as far above 1, a scale counts as stuck. Beyond
            that predictions are worse than uniform ones, as at the start: no trap, and lower epsilon no remedy.
        interval: Iterations between looks; a look waits for the device.
    """

    def __init__(self, patience: int = 500, threshold: float = 0.99, interval: int = 50) -> None:
        self.patience = patience
        self.threshold = threshold
        self.interval = interval
        self._stuck_since: dict[str, int] = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Looks at the ratios."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, value in (outputs or {}).items():
            if name.startswith("ce_ratio_"):
                self._look(runner, name.removeprefix("ce_ratio_"), float(value))

    def _look(self, runner: Runner, scale: str, ratio: float) -> None:
        # A ratio that is not finite is DivergenceHook's to judge: loss scaling may skip the step.
        if not abs(ratio - 1) <= 1 - self.threshold:
            self._stuck_since.pop(scale, None)
            return
        since = self._stuck_since.setdefault(scale, max(0, runner.iter + 1 - self.interval))
        if runner.iter + 1 - since < self.patience:
            return
        self._stuck_since[scale] = runner.iter + 1  # once more only after as long again
        epsilon = head_of(runner).assigner.epsilon
        runner.logger.warning(
            f"The loss of {scale} has stood at ln K for {self.patience} iterations (ratio {ratio:.3f}): its codes are "
            f"uniform and nothing is learned there. Set model.head.assigner.epsilon lower (now {epsilon:g}; "
            f"{min(0.01, epsilon / 2):g} say), use AdamW with lr 0.003 (configs/_base_/schedules/adamw.py), or "
            f"a larger batch. See docs/small_batches.md."
        )
