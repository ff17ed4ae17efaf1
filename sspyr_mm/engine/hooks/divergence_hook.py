"""Stops a diverged run before its good checkpoints are replaced."""

import os
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner, find_latest_checkpoint
from mmpretrain.registry import HOOKS
from torch import Tensor

from sspyr_mm.engine.hooks.model_access import is_line_due, unwrapped
from sspyr_mm.files import shortened

_MAX_SKIPS = 20
"""Consecutive steps without a finite loss after which loss scaling no longer recovers."""


class DivergenceError(FloatingPointError):
    """The loss, the weights or the optimizer's state of a run are NaN or infinite."""


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Stops training when the loss, the weights, a buffer or the optimizer's state is NaN or infinite.

    No step waits for the device: losses are read from the message hub when a log line is due; weights, buffers and
    optimizer state are checked before training, at the end of every epoch and before a checkpoint is saved. So no
    checkpoint with such a value is saved, and none is removed to make room for it.

    Where losses are scaled (float16), a step with infinite gradients is skipped and the scale reduced: a loss that is
    not finite counts only once the weights are affected, or after 20 consecutive such steps.

    Collective: all ranks check at the same iterations and stop together, with a :class:`DivergenceError`.
    """

    # After RuntimeInfoHook and LoggerHook, before CheckpointHook and InterruptHook.
    priority = "LOW"

    def __init__(self) -> None:
        self._checked = 0
        self._training = False

    def before_train(self, runner: Runner) -> None:
        """Checks the state that training starts from."""
        self._checked, self._training = runner.iter, True
        if names := non_finite_state(runner):
            raise DivergenceError(
                f"Training cannot start: {_some(names)} not finite. The checkpoint to resume or load was saved after "
                "its run had diverged; use an earlier one: --resume CHECKPOINT, or --cfg-options load_from=CHECKPOINT"
            )

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Checks the losses since the last log line when the next one is due, and the state before it is saved."""
        if is_line_due(runner, batch_idx) or self.is_last_train_iter(runner):
            self._check_losses(runner)
        if any(isinstance(hook, CheckpointHook) and _saves_now(hook, runner) for hook in runner.hooks):
            check_state(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Checks the state, before ``CheckpointHook`` saves it."""
        check_state(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Checks the state during training, before ``CheckpointHook`` saves it as the best."""
        if self._training:
            check_state(runner, runner.iter)

    def after_run(self, runner: Runner) -> None:
        """Ends the checks: later values are not saved."""
        self._training = False

    def _check_losses(self, runner: Runner) -> None:
        bad = _first_bad_loss(runner, runner.iter + 1 - self._checked)
        self._checked = runner.iter + 1
        found = [one for one in all_gather_object(bad) if one is not None]
        if not found:
            return
        names = non_finite_state(runner)
        if _scales_loss(runner) and not names and not any(persists for _, _, persists in found):
            return
        _, reason, _ = min(found, key=lambda one: one[0])
        _stop(runner, f"{reason}; {_some(names)} not finite now" if names else reason)


def check_state(runner: Runner, iteration: int) -> None:
    """Raises :class:`DivergenceError` if a weight, buffer or optimizer state is not finite on any rank. Collective."""
    if names := non_finite_state(runner):
        _stop(runner, f"after iteration {iteration} {_some(names)} not finite")


def non_finite_state(runner: Runner) -> list[str]:
    """Lists the tensors of a checkpoint that are not finite on any rank. Collective; waits for the device.

    Buffers count only if they are NaN: some hold infinity on purpose.
    """
    tests: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor, may_be_inf in _state(runner):
        if tensor.is_floating_point() or tensor.is_complex():
            bad = tensor.detach().isnan() if may_be_inf else ~tensor.detach().isfinite()
            tests.setdefault(tensor.device, []).append((name, bad.any()))
    names: list[str] = []
    for pairs in tests.values():
        flags = torch.stack([flag for _, flag in pairs]).tolist()
        names += [name for (name, _), flag in zip(pairs, flags, strict=True) if flag]
    return list(dict.fromkeys(name for one in all_gather_object(names) for name in one))


def _state(runner: Runner) -> Iterator[tuple[str, Tensor, bool]]:
    """Yields name, tensor, and whether infinity is allowed."""
    model, names = unwrapped(runner), {}
    for name, param in model.named_parameters():
        names[param] = name
        yield name, param, False
    for name, buffer in model.named_buffers():
        yield name, buffer, True
    for wrapper in _optim_wrappers(runner):
        for param, state in wrapper.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"{key} of {names.get(param, 'a parameter')}", value, False


def _optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return list(wrapper.optim_wrappers.values())
    return [wrapper] if isinstance(wrapper, OptimWrapper) else []  # a config until training starts


def _scales_loss(runner: Runner) -> bool:
    scalers = (getattr(wrapper, "loss_scaler", None) for wrapper in _optim_wrappers(runner))
    return any(scaler is not None and scaler.is_enabled() for scaler in scalers)


def _saves_now(hook: CheckpointHook, runner: Runner) -> bool:
    """Returns whether the hook saves after this iteration; mmengine's own condition."""
    if hook.by_epoch:
        return False
    due = hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
    return due or (hook.save_last and hook.is_last_train_iter(runner))


def _first_bad_loss(runner: Runner, count: int) -> tuple[int, str, bool] | None:
    """Finds the first value that is not finite in the last ``count`` iterations of this rank.

    Within an iteration, a loss term comes before the sum. Returns the iteration (from 1), a description, and whether
    none of the latest values is finite; None if all are.
    """
    scalars = runner.message_hub.log_scalars
    found = []
    for key, buffer in scalars.items():
        name = key.removeprefix("train/")
        if not key.startswith("train/") or "loss" not in name:
            continue
        history = buffer.data[0]
        bad = np.flatnonzero(~np.isfinite(history[-count:]))
        if count and bad.size:
            found.append((int(bad[0]) - len(history[-count:]), name == "loss", name, history))
    if not found:
        return None
    place, _, name, history = min(found, key=lambda one: one[:3])
    iteration = runner.iter + 2 + place  # place -1: this one
    details = [f"epoch {runner.epoch + 1}"]
    rates = scalars["train/lr"].data[0] if "train/lr" in scalars else []
    if len(rates) >= -place:
        details.append(f"learning rate {rates[place]:.3g}")
    finite = history[:place][np.isfinite(history[:place])]
    if finite.size:
        details.append(f"last finite value {finite[-1]:.4g}")
    rank = f" on rank {get_rank()}" if get_world_size() > 1 else ""
    reason = f"{name} became {float(history[place])} at iteration {iteration}{rank} ({', '.join(details)})"
    return iteration, reason, len(history) >= _MAX_SKIPS and not np.isfinite(history[-_MAX_SKIPS:]).any()


def _stop(runner: Runner, reason: str) -> NoReturn:
    """Ends the run with the reason and the remedies."""
    last = runner.message_hub.runtime_info.get("last_ckpt")
    if not (last and os.path.exists(last)) and runner._resume:
        last = find_latest_checkpoint(runner.work_dir)
    good = last if last and os.path.exists(last) else None
    where = f"The last good checkpoint is {good}" if good else "There is no earlier checkpoint"
    again = f"--resume {good} --cfg-options" if good else "--cfg-options"
    rate = f" from its weights (another --work-dir, --cfg-options load_from={good})" if good else ""
    runner.call_hook("after_run")  # closes a progress bar
    raise DivergenceError(
        f"Training has diverged: {reason}. {where}; nothing was saved since. Clip gradients ({again} "
        "optim_wrapper.clip_grad.max_norm=35), use bfloat16 if the run uses float16 (no --amp, but --cfg-options "
        "optim_wrapper.type=AutocastOptimWrapper), or "
        f"start a new run{rate} with a lower optim_wrapper.optimizer.lr or a longer warm-up: a resumed run keeps the "
        "learning rate of its checkpoint"
    )


def _some(names: list[str]) -> str:
    """Returns the first names, with the verb."""
    return f"{shortened(names, 3)} {'is' if len(names) == 1 else 'are'}"
