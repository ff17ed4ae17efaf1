"""Mixed precision that also runs on a CPU, and checkpoints between the iterations of an optimizer step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.amp import autocast
from mmpretrain.registry import HOOKS, OPTIM_WRAPPERS
from torch import Tensor, bfloat16, dtype, nn

from sspyr_mm.engine.hooks.model_access import accumulative_counts, is_within_step, saves_checkpoint, unwrapped

__all__ = ["AccumulationHook", "AutocastOptimWrapper"]

_GRADIENTS = "accumulated_gradients"
"""Key of a checkpoint."""


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16, on a GPU or on a CPU, without loss scaling.

    mmengine's ``AmpOptimWrapper`` cannot be built without a GPU. bfloat16 has the exponent range of float32, so that
    only the autocast context is needed. Stateless beyond ``OptimWrapper``.

    Args:
        dtype: Type of the autocast regions; only bfloat16 works everywhere and without loss scaling.
        **kwargs: Arguments of ``mmengine.optim.OptimWrapper`` (``optimizer``, ``accumulative_counts``, ``clip_grad``).

    Raises:
        ValueError: If ``dtype`` is not bfloat16.
    """

    cast_dtype = bfloat16
    """As of mmengine's ``AmpOptimWrapper``."""

    def __init__(self, *, dtype: str | dtype = "bfloat16", **kwargs: Any) -> None:
        if dtype not in ("bfloat16", bfloat16):
            raise ValueError(
                f"AutocastOptimWrapper: dtype must be 'bfloat16', got {dtype!r}; float16 needs loss scaling: "
                "use AmpOptimWrapper(dtype='float16') on a GPU"
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enters autocast and the gradient accumulation context of ``OptimWrapper``, for one forward pass."""
        with super().optim_context(model), autocast(dtype=bfloat16):
            yield


@HOOKS.register_module()
class AccumulationHook(Hook):
    """Adds accumulated gradients to checkpoints that are saved between the iterations of an optimizer step.

    A resumed run then equals an uninterrupted one. With several processes, whose gradients are not reduced before the
    end of the step, their mean is saved and replaces the gradients of each: the resumed run may have another number of
    processes, and the uninterrupted one continues with the same numbers. Collective before such a checkpoint.
    """

    # Before CheckpointHook.
    priority = "LOW"

    def __init__(self) -> None:
        self._saved: dict[str, Tensor] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the gradients out of a checkpoint."""
        gradients = checkpoint.pop(_GRADIENTS, {})
        self._saved = gradients if runner._resume else {}

    def before_train(self, runner: Runner) -> None:
        """Restores the gradients if the run continues within a step."""
        gradients, self._saved = self._saved, {}
        done = runner.iter % accumulative_counts(runner)
        if gradients and done:
            for name, param in unwrapped(runner).named_parameters():
                if name in gradients:
                    param.grad = gradients[name].to(param)
            runner.logger.info(
                f"The gradients of the first {done} iterations of this step are those of the checkpoint."
            )

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Averages over processes before a checkpoint."""
        if saves_checkpoint(runner, by_epoch=False):
            self._average(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Averages over processes before a checkpoint."""
        if saves_checkpoint(runner, by_epoch=True):
            self._average(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the gradients."""
        if gradients := _accumulated(runner):
            checkpoint[_GRADIENTS] = {name: gradient.cpu() for name, gradient in gradients.items()}

    def _average(self, runner: Runner) -> None:
        if get_world_size() > 1:
            for gradient in _accumulated(runner).values():
                all_reduce(gradient, "mean")


def _accumulated(runner: Runner) -> dict[str, Tensor]:
    """Returns the gradients by name if an optimizer step is incomplete."""
    if not is_within_step(runner):
        return {}
    return {name: p.grad for name, p in unwrapped(runner).named_parameters() if p.grad is not None}
