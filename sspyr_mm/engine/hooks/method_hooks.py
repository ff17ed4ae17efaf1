"""Hooks of the methods: prototypes, queues, momentum. Their only state is the counters of the runner."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor
from torch.optim import Optimizer

from sspyr_mm.engine.hooks.model_access import accumulative_counts, head_of, model_of
from sspyr_mm.models import MomentumModel
from sspyr_mm.views.checks import is_number


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


@HOOKS.register_module()
class MomentumHook(Hook):
    """Updates the momentum encoder after every optimizer step, and the queues after every iteration.

    Args:
        momentum: m, in [0, 1].
        end: m after the last step, which m approaches on half a cosine; None: m is constant.

    Raises:
        ValueError: If a momentum is not in [0, 1].

    Source: MoCo, equation 2; BYOL, section 3.2 (tau from 0.996 to 1).
    """

    def __init__(self, momentum: float = 0.999, end: float | None = None) -> None:
        for value in (momentum, momentum if end is None else end):
            if not is_number(value) or not 0 <= value <= 1:
                raise ValueError(f"momentum and end must be in [0, 1], got {value!r}; MoCo uses 0.999")
        self.momentum = momentum
        self.end = end

    def momentum_after(self, num_steps: int, num_total: int) -> float:
        """Returns m of the update after a number of optimizer steps, of ``num_total``."""
        if self.end is None:
            return self.momentum
        share = (math.cos(math.pi * num_steps / num_total) + 1) / 2
        return self.end - (self.end - self.momentum) * share

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Updates."""
        counts = accumulative_counts(runner)
        stepped = runner.optim_wrapper.should_update()
        steps, total = math.ceil((runner.iter + 1) / counts), math.ceil(runner.max_iters / counts)
        model_of(runner, MomentumModel).finish_step(self.momentum_after(steps, total) if stepped else None)
