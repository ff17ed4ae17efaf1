"""Discards optimizer steps whose loss or gradient is not finite, without waiting for the device."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.optim import Optimizer

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type per number of bytes."""


class Verdict:
    """Whether a step was discarded, read from the device when it is asked for.

    Args:
        flag: int32 scalar, 1 if the step was discarded.
    """

    def __init__(self, flag: Tensor) -> None:
        self._flag, self._copied = flag, None
        if flag.is_cuda:
            self._flag = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def __bool__(self) -> bool:
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._flag)


class StepGuard:
    """Restores the state of training after a step whose loss, gradient or buffers are not finite.

    A step has all iterations whose gradients it accumulates. One of them that is not finite, on any rank, discards the
    whole step on all ranks. The flag is computed on the device before the optimizer's step:

    - on a CPU the host reads it, and the optimizer gets no gradients;
    - on a GPU the optimizer runs, and integer arithmetic on the bits of its parameters and state selects old or new
      values. The copy of the old values exists during the optimizer's step only, when activations are freed.

    Tensors outside of the optimizer are copied when the step begins, and restored by :meth:`finish`.

    Collective: the optimizer's step, or :meth:`finish` if loss scaling has skipped it, reduces one number over ranks.

    Args:
        model: Model; the values of its output dict whose names contain ``loss`` are checked.
        optimizers: Optimizers of its parameters.
        changed: Tensors that forward passes and hooks change: buffers, and parameters such as a momentum encoder's.
        deferred: Whether the host does not read the flag; None: on a GPU.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        changed: Sequence[Tensor],
        *,
        deferred: bool | None = None,
    ) -> None:
        self._device = next(model.parameters()).device
        self.deferred = self._device.type == "cuda" if deferred is None else deferred
        self._buffers, self._optimizers = _numbers(model.buffers(), self._device), optimizers
        self._changed = [tensor.detach() for tensor in changed if tensor.device == self._device]
        self._before = [torch.empty_like(tensor) for tensor in self._changed]
        self._losses: list[Tensor] = []
        self._flag: Tensor | None = None
        self._in_step = False
        self._on_device: dict[tuple[Tensor, str], Tensor] = {}
        self._old: list[Tensor] = []  # of these, times the flag
        self._kept: dict[Optimizer, dict[tuple[Tensor, str], Any]] = {}  # the optimizers' state on the host
        self._handles = [model.register_forward_hook(self._note_losses)]
        for optimizer in optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before_optimizer))
            self._handles.append(optimizer.register_step_post_hook(self._after_optimizer))

    def close(self) -> None:
        """Detaches from model and optimizers."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def begin(self) -> None:
        """Copies the tensors outside of the optimizer. Call it before the first iteration of a step."""
        torch._foreach_copy_(self._before, self._changed)
        self._losses.clear()
        self._flag, self._in_step = None, True

    @torch.no_grad()
    def finish(self) -> Verdict:
        """Restores the tensors outside of the optimizer if the step is discarded. Call it after all hooks."""
        flag = self._judge(gradients=False) if self._flag is None else self._flag  # None: skipped by loss scaling
        if self.deferred:
            old = list(torch._foreach_mul(_bits(self._before), flag))
            _replace(self._changed, old, flag)
        elif flag:
            torch._foreach_copy_(self._changed, self._before)
        self._in_step = False
        return Verdict(flag)

    @torch.no_grad()
    def discard_so_far(self, *, gradients: bool) -> None:
        """Makes a state within a step fit for a checkpoint; waits for the device. Collective.

        If an iteration so far is not finite, buffers are restored and NaN is left in the gradients alone, so that the
        step is discarded at its end, also by a resumed run. With loss scaling, ``gradients`` must be False.
        """
        if self._judge(gradients=gradients):
            torch._foreach_copy_(self._changed, self._before)
            for gradient in self._gradients():
                gradient.fill_(math.nan)

    def restore_late(self, verdict: Verdict) -> bool:
        """Returns the verdict on the last finished step, and sets back what the optimizer keeps on the host.

        Call it before the next step of the optimizer.
        """
        kept, self._kept = self._kept, {}
        if not verdict:
            return False
        for optimizer, entries in kept.items():
            for (param, key), value in entries.items():
                if key in optimizer.state[param]:
                    optimizer.state[param][key] = value
        return True

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Shows the state before the current step, and afterwards the current one."""
        with torch.no_grad():
            now = [tensor.clone() for tensor in self._changed]
            if self._in_step:
                torch._foreach_copy_(self._changed, self._before)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._changed, now)

    def _note_losses(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._in_step and isinstance(output, dict) and torch.is_grad_enabled():
            for name, value in output.items():
                if "loss" in name:
                    self._losses += [x.detach() for x in (value if isinstance(value, (list, tuple)) else [value])]

    def _gradients(self) -> list[Tensor]:
        groups = (group for optimizer in self._optimizers for group in optimizer.param_groups)
        return [param.grad for group in groups for param in group["params"] if param.grad is not None]

    def _judge(self, *, gradients: bool) -> Tensor:
        """Computes the flag, equal on all ranks: an int32 scalar."""
        checked = [*self._losses, *(self._gradients() if gradients else [])]
        bad = self._is_bad(checked, math.inf if self.deferred else 2.0)
        if not self.deferred and bad:  # on a CPU, 2-norms are eight times faster, but those above 1e19 overflow
            bad = self._is_bad(checked, math.inf)
        flag = bad.int()
        all_reduce(flag, "max")
        return flag

    def _is_bad(self, checked: Sequence[Tensor], order: float) -> Tensor:
        checked = _numbers(checked, self._device)
        if not checked and not self._buffers:
            return torch.zeros((), dtype=torch.bool, device=self._device)
        norms = torch.stack(torch._foreach_norm([*checked, *self._buffers], order))
        bad = ~norms[: len(checked)].isfinite().all()
        return bad | norms[len(checked) :].isnan().any()  # infinity is allowed in buffers: some hold it on purpose

    @torch.no_grad()
    def _before_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._in_step:
            return
        if self._flag is None:  # the first optimizer of this step
            self._flag = self._judge(gradients=True)
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.deferred:
            self._on_device = _entries(optimizer, params, self._device)
            self._kept[optimizer] = {
                (param, key): copy.deepcopy(value)
                for param in params
                for key, value in optimizer.state.get(param, {}).items()
                if (param, key) not in self._on_device
            }
            self._old = list(torch._foreach_mul(_bits(list(self._on_device.values())), self._flag))
        elif self._flag:
            for param in params:
                param.grad = None

    @torch.no_grad()
    def _after_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._in_step or not self.deferred or self._flag is None:
            return
        params = [param for param, key in self._on_device if key == _PARAM]
        known, kept = self._on_device, self._kept[optimizer]
        created = [
            (param, key)
            for param in params
            for key in optimizer.state.get(param, {})
            if (param, key) not in known and (param, key) not in kept
        ]
        if created and self._flag:  # waits, in the first step of a parameter only
            for param, key in created:
                del optimizer.state[param][key]
                if not optimizer.state[param]:
                    del optimizer.state[param]
        now = _entries(optimizer, params, self._device)
        _replace([now[place] for place in known], self._old, self._flag)
        self._on_device, self._old = {}, []


_PARAM = ""
"""Key of a parameter itself among the entries of its state."""


def _entries(optimizer: Optimizer, params: Sequence[Tensor], device: torch.device) -> dict[tuple[Tensor, str], Tensor]:
    """Returns parameters and their state that are tensors on the device."""
    found = {}
    for param in params:
        for key, value in {_PARAM: param, **optimizer.state.get(param, {})}.items():
            if isinstance(value, Tensor) and value.device == device:
                found[param, key] = value.detach()
    return found


def _numbers(tensors: Iterable[Tensor], device: torch.device) -> list[Tensor]:
    """Returns the tensors of real or complex numbers on the device that are not empty."""
    return [
        x.detach()
        for x in tensors
        if x.device == device and x.numel() and not x.is_sparse and (x.is_floating_point() or x.is_complex())
    ]


def _bits(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns views as integers: NaN times 0 is NaN, but its bits times 0 are 0."""
    return [tensor.view(_BITS[tensor.element_size()]) for tensor in tensors]


def _replace(current: Sequence[Tensor], old: list[Tensor], flag: Tensor) -> None:
    """Sets tensors to the old bits if the flag is 1; ``old`` are the old bits times the flag."""
    bits = _bits(current)
    torch._foreach_mul_(bits, 1 - flag)
    torch._foreach_add_(bits, old)
