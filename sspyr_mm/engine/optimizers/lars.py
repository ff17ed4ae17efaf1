"""Layer-wise adaptive rate scaling with multi-tensor operators, without waiting for the device."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmpretrain.registry import OPTIMIZERS
from torch import Tensor
from torch.optim import Optimizer


@OPTIMIZERS.register_module()
class ForeachLARS(Optimizer):
    """SGD with momentum whose step is scaled per parameter by the ratio of weight norm to gradient norm.

    For every parameter p with gradient g::

        d = g + weight_decay * p
        d = d * trust_coefficient * |p| / (|g| + weight_decay * |p| + eps)   where |p| > 0 and |g| > 0, else d = g
        buffer = momentum * buffer + d
        p = p - lr * buffer

    A parameter without gradient is unchanged. State per parameter: ``momentum_buffer``, in the checkpoint.

    Args:
        params: Parameters or groups.
        lr: Learning rate, > 0.
        momentum: Momentum, in [0, 1).
        weight_decay: Weight decay, >= 0.
        trust_coefficient: Factor of the ratio, > 0.
        eps: Small constant that keeps the ratio finite, > 0.
        exclude_1d: Whether parameters with one axis (biases, weights of norm layers) have neither decay nor ratio, d =
            g, as in BYOL. Unlike ``paramwise_cfg``, with which mmengine makes a group of every parameter, it keeps the
            step in a few kernels.

    Raises:
        ValueError: If a number is out of its range.

    Source: official code (SGD inside LARC, trust 0.001, no clipping); You et al., arXiv 1708.03888.
    Deviation: norms and ratios stay on the device, where mmpretrain's ``LARS`` reads two of them back per parameter and
    step; the learning rate is outside the momentum buffer, so that a schedule takes effect at once.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 1e-8,
        exclude_1d: bool = False,
    ) -> None:
        if not lr > 0:
            raise ValueError(f"lr must be > 0, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if weight_decay < 0 or trust_coefficient <= 0 or eps <= 0:
            raise ValueError(
                "weight_decay must be >= 0, trust_coefficient and eps > 0, "
                f"got {weight_decay}, {trust_coefficient} and {eps}"
            )
        numbers = dict(momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient, eps=eps)
        super().__init__(params, dict(lr=lr, exclude_1d=exclude_1d, **numbers))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Performs one step and returns the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(params, group)
        return loss

    def _step_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        excluded = [p for p in params if group["exclude_1d"] and p.ndim < 2]
        scaled = [p for p in params if not (group["exclude_1d"] and p.ndim < 2)]
        updates = [*_scaled_updates(scaled, group), *(p.grad for p in excluded if p.grad is not None)]
        params = scaled + excluded
        buffers = [self._momentum_buffer(p) for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(params, buffers, alpha=-group["lr"])

    def _momentum_buffer(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        return state["momentum_buffer"]


def _scaled_updates(params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Returns gradient plus decay times the ratio, per parameter."""
    if not params:
        return []
    grads = [p.grad for p in params if p.grad is not None]
    decay = group["weight_decay"]
    param_norm = torch.stack(torch._foreach_norm(params))
    grad_norm = torch.stack(torch._foreach_norm(grads)).to(param_norm.dtype)
    plain = (param_norm == 0) | (grad_norm == 0)
    ratio = group["trust_coefficient"] * param_norm / (grad_norm + decay * param_norm + group["eps"])
    # Decay is part of the scaled update; an unscaled update has none.
    grad_scale = torch.where(plain, 1.0, ratio).unbind()
    decay_scale = torch.where(plain, 0.0, ratio * decay).unbind()
    updates = torch._foreach_mul(grads, grad_scale)
    if decay:
        torch._foreach_add_(updates, torch._foreach_mul(params, decay_scale))
    return list(updates)
