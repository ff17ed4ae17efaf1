"""Hooks on the head: normalisation, freezing, queues. Their only state is the counters of the runner."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor
from torch.optim import Optimizer

from sspyr_mm.engine.hooks.model_access import accumulative_counts, head_of


@HOOKS.register_module()
class NormalizePrototypesHook(Hook):
    """Normalises prototypes (official: also rows of g) to unit length after every step that may have changed them.

    Source: Algorithm 1, last line. The official code does it before the forward pass, which gives the same numbers,
    since they are also initialised with unit length.
    """

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Normalises."""
        # Frozen rows already have unit length; normalising again would change their last bits.
        if not any(isinstance(h, FreezePrototypesHook) and h.is_active(runner) for h in runner.hooks):
            head_of(runner).normalize_()


@HOOKS.register_module()
class FreezePrototypesHook(Hook):
    """Freezes prototypes and correlation learners during the first iterations.

    Their gradient is zero, so that it adds nothing to a clipped norm, and dropped right before the optimizer
    steps. ``requires_grad`` stays, so that distributed training sees the same parameters in every step and needs no
    ``find_unused_parameters``.

    Args:
        num_iters: Number of optimizer steps: iterations, unless gradients are accumulated. Defaults to 0: nothing is
            frozen.

    Raises:
        ValueError: If it is negative.

    Source: official code, ``freeze_prototypes_niters`` (648, about an epoch of COCO train2014 at batch 128).
    """

    def __init__(self, num_iters: int = 0) -> None:
        if num_iters < 0:
            raise ValueError(f"num_iters must be >= 0, got {num_iters}; 0 freezes nothing")
        self.num_iters = num_iters

    def is_active(self, runner: Runner) -> bool:
        """Returns whether the current iteration belongs to one of the first steps."""
        return runner.iter // accumulative_counts(runner) < self.num_iters

    def before_train(self, runner: Runner) -> None:
        """Attaches to the optimizer."""
        if not self.is_active(runner):
            return
        frozen = head_of(runner).target_parameters()

        def drop_gradients(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            # Stays attached afterwards: in torch a hook cannot remove itself while hooks run.
            if self.is_active(runner):
                for param in frozen:
                    param.grad = None

        def zero(grad: Tensor) -> Tensor | None:
            # Not multiplied by 0: gradients scaled for float16 may be infinite.
            return torch.zeros_like(grad) if self.is_active(runner) else None

        for param in frozen:
            param.register_hook(zero)
        runner.optim_wrapper.optimizer.register_step_pre_hook(drop_gradients)


@HOOKS.register_module()
class QueueHook(Hook):
    """Starts the queues at an epoch; before it, they are neither filled nor used.

    Args:
        start_epoch: First epoch with queues, from 0.

    Source: official code, ``epoch_queue_starts`` (80).
    """

    def __init__(self, start_epoch: int = 0) -> None:
        self.start_epoch = start_epoch

    def before_train_epoch(self, runner: Runner) -> None:
        """Switches the queues on or off."""
        head_of(runner).use_queues(runner.epoch >= self.start_epoch)
