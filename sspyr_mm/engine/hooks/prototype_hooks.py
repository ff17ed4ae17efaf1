"""Hooks on the head: normalisation, freezing, queues. All of them derive what to do from the runner's counters."""

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
    """Brings prototypes (release: rows of g, too) back to unit length after every step that may have moved them.

    Source: Algorithm 1, last line. The release does it before the forward pass, which gives the same numbers: they are
    also of unit length when they are made.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Normalises."""
        # What is frozen is of unit length already; doing it again would change its last bits.
        if not any(isinstance(h, FreezePrototypesHook) and h.is_active(runner) for h in runner.hooks):
            head_of(runner).normalize_()


@HOOKS.register_module()
class FreezePrototypesHook(Hook):
    """Keeps prototypes and correlation learners as they are during the first iterations.

    Their gradient is zero, so that it adds nothing to a norm that is clipped, and dropped right before the optimiser
    steps. ``requires_grad`` stays, so that distributed training sees the same parameters in every step and needs no
    ``find_unused_parameters``.

    Args:
        num_iters: Length in steps of the optimiser: iterations, unless gradients are accumulated. Defaults to 0:
            nothing is frozen.

    Raises:
        ValueError: If it is negative.

    Source: released code, ``freeze_prototypes_niters`` (648, about an epoch of COCO train2014 at batch 128).
    """

    def __init__(self, num_iters: int = 0) -> None:
        if num_iters < 0:
            raise ValueError(f"num_iters must be >= 0, got {num_iters}; 0 freezes nothing")
        self.num_iters = num_iters

    def is_active(self, runner: Runner) -> bool:
        """Whether the iteration at hand belongs to one of the first steps."""
        return runner.iter // accumulative_counts(runner) < self.num_iters

    def before_train(self, runner: Runner) -> None:
        """Attaches to the optimiser."""
        if not self.is_active(runner):
            return
        frozen = head_of(runner).target_parameters()

        def drop_gradients(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            # Stays attached afterwards: torch forbids a hook to remove itself while hooks are run.
            if self.is_active(runner):
                for param in frozen:
                    param.grad = None

        def zero(grad: Tensor) -> Tensor | None:
            # Not a product with 0: gradients scaled for float16 may be infinite.
            return torch.zeros_like(grad) if self.is_active(runner) else None

        for param in frozen:
            param.register_hook(zero)
        runner.optim_wrapper.optimizer.register_step_pre_hook(drop_gradients)


@HOOKS.register_module()
class QueueHook(Hook):
    """Starts the queues at an epoch; before it, nothing is added to them or taken from them.

    Args:
        start_epoch: First epoch with queues, from 0.

    Source: released code, ``epoch_queue_starts`` (80).
    """

    def __init__(self, start_epoch: int = 0) -> None:
        self.start_epoch = start_epoch

    def before_train_epoch(self, runner: Runner) -> None:
        """Switches the queues."""
        head_of(runner).use_queues(runner.epoch >= self.start_epoch)
