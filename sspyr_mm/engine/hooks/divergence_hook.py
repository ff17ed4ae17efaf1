"""Discards steps that are not finite, and stops a diverged run before its good checkpoints are replaced."""

import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner, find_latest_checkpoint
from mmpretrain.registry import HOOKS
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sspyr_mm.engine.hooks.model_access import (
    is_within_step,
    loss_scaler,
    non_finite_state,
    optim_wrappers,
    precision,
    saves_checkpoint,
    unwrapped,
)
from sspyr_mm.engine.replay import Found, Iteration, run_step, save_step
from sspyr_mm.engine.step_guard import StepGuard, Verdict
from sspyr_mm.files import shortened
from sspyr_mm.models import MomentumModel, ViewModel

_MAX_SCALED_SKIPS = 20
"""Consecutive discarded steps after which loss scaling no longer recovers."""
_SKIPPED = "skipped_steps"
"""Key in the message hub, which is part of the checkpoint: number of discarded steps of the run."""


class DivergenceError(FloatingPointError):
    """The loss, the weights or the optimizer's state of a run are NaN or infinite."""


@dataclass
class _Step:
    """An optimizer step: number of its last iteration (from 1), epoch, learning rate, and what it computed."""

    iteration: int = 0
    epoch: int = 0
    rate: float = 0.0
    iterations: list[Iteration] = field(default_factory=list)
    outputs: list[dict[str, Tensor]] = field(default_factory=list)
    verdict: Verdict | None = None

    def bad_terms(self) -> list[str]:
        """Returns the loss terms of this rank that are not finite; the sum only if no term is."""
        terms = {
            name: float(value)
            for losses in self.outputs
            for name, value in losses.items()
            if "loss" in name and not value.isfinite().all()
        }
        total = terms.pop("loss", None)
        return [
            f"{name} is {value}" for name, value in (terms or ({"loss": total} if total is not None else {})).items()
        ]


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Discards optimizer steps whose loss or gradient is NaN or infinite, and stops a run that has diverged.

    A discarded step changes no weight, buffer, queue, prototype, momentum encoder, average of weights or optimizer
    state on any rank, see :class:`StepGuard`; only iteration, schedule and loss scale proceed. It is logged and
    counted. ``max_skips`` in a row stop training with a diagnosis. On a GPU the host reads the verdict on a step
    before the optimizer's next one, when the device has the next forward and backward pass to compute.

    Of pre-training, the first discarded step of a run and the last before it stops are saved with the state before
    them, in ``WORK_DIR/skipped_step_first.pt`` and ``skipped_step_last.pt``, for ``tools/replay.py``.

    Weights, buffers and optimizer state are also checked before training, at the end of every epoch and before a
    checkpoint is saved. So no checkpoint with such a value is saved, and none is removed to make room for it.

    Where losses are scaled (float16), steps whose gradients alone are infinite are left to loss scaling, and
    20 discarded steps in a row stop the run.

    Collective: all ranks check at the same iterations and stop together, with a :class:`DivergenceError`.

    Args:
        max_skips: Discarded steps in a row that stop training, >= 1.

    Raises:
        ValueError: If ``max_skips`` is less than 1.
    """

    # After RuntimeInfoHook, LoggerHook and the hooks of methods; before CheckpointHook and InterruptHook.
    priority = "LOW"

    def __init__(self, max_skips: int = 3) -> None:
        if max_skips < 1:
            raise ValueError(f"max_skips must be >= 1, got {max_skips}; the default is 3")
        self.max_skips = max_skips
        self._training, self._in_a_row, self._has_first = False, 0, False
        self._guard: StepGuard | None = None
        self._handles: list[RemovableHandle] = []
        self._step, self._unread = _Step(), _Step()  # the current one; the last one, if its verdict was not read

    def before_train(self, runner: Runner) -> None:
        """Checks the state that training starts from, and attaches to model and optimizers."""
        self.after_run(runner)
        self._training, self._in_a_row = True, 0
        self._has_first = runner._resume and os.path.exists(_file(runner, "first"))
        if names := non_finite_state(runner):
            raise DivergenceError(
                f"Training cannot start: {_some(names)} not finite. The checkpoint to resume or load was saved after "
                "its run had diverged; use an earlier one: --resume CHECKPOINT, or --cfg-options load_from=CHECKPOINT"
            )
        optimizers = [wrapper.optimizer for wrapper in optim_wrappers(runner)]
        for optimizer in optimizers:  # called before the guard's
            self._handles.append(optimizer.register_step_pre_hook(lambda *_: self.settle(runner)))
        self._guard = StepGuard(unwrapped(runner), optimizers, _changed(runner))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps the state before a step, and the batch."""
        if not self._step.iterations and self._guard is not None:
            self._guard.begin()
            self._step.rate = optim_wrappers(runner)[0].optimizer.param_groups[0]["lr"]
        self._step.iterations.append(Iteration.of(data_batch))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Restores the state if the step is discarded; checks the state before it is saved."""
        self._step.outputs.append({name: value.detach() for name, value in (outputs or {}).items()})
        if self._guard is not None and not is_within_step(runner):
            self.settle(runner)  # unread still if loss scaling has skipped the optimizer
            step, self._step = self._step, _Step()
            step.verdict, step.iteration, step.epoch = self._guard.finish(), runner.iter + 1, runner.epoch + 1
            self._unread = step
            if not self._guard.deferred or self.is_last_train_iter(runner):
                self.settle(runner)
        if saves_checkpoint(runner, by_epoch=False):
            self._check_before_saving(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Checks the state, before ``CheckpointHook`` saves it."""
        self._check_before_saving(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Checks the state during training, before ``CheckpointHook`` saves it as the best."""
        if self._training:
            check_state(runner, runner.iter)

    def after_run(self, runner: Runner) -> None:
        """Ends the checks: later values are not saved."""
        self._training, self._step, self._unread = False, _Step(), _Step()
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        while self._handles:
            self._handles.pop().remove()

    def settle(self, runner: Runner) -> None:
        """Reads the verdict on the last step. Collective if it was discarded.

        Raises:
            DivergenceError: If it is the last of ``max_skips`` discarded steps in a row.
        """
        step, self._unread = self._unread, _Step()
        if self._guard is None or step.verdict is None:
            return
        if not self._guard.restore_late(step.verdict):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        count = runner.message_hub.runtime_info.get(_SKIPPED, 0) + 1
        runner.message_hub.update_info(_SKIPPED, count)
        found = all_gather_object(step.bad_terms())
        reason = _terms(found)
        limit = max(self.max_skips, _MAX_SCALED_SKIPS) if loss_scaler(runner) else self.max_skips
        runner.logger.warning(
            f"The step of iteration {step.iteration} (epoch {step.epoch}) is discarded: {reason}. Nothing has changed; "
            f"{count} discarded so far, {self._in_a_row} in a row ({limit} stop the run)"
        )
        if self._in_a_row >= limit:
            self._stop(runner, step, reason)
        if not self._has_first:
            self._has_first = True
            self._save(runner, step, "first", next((rank for rank, terms in enumerate(found) if terms), 0))

    def _check_before_saving(self, runner: Runner, iteration: int) -> None:
        if self._step.iterations and self._guard is not None:  # within accumulated gradients
            self._guard.discard_so_far(gradients=loss_scaler(runner) is None)
        check_state(runner, iteration)

    def _save(self, runner: Runner, step: _Step, which: str, rank: int) -> None:
        model = unwrapped(runner)
        if not isinstance(model, ViewModel) or self._guard is None:  # batches of others hold objects
            return
        if rank == get_rank():
            meta = dict(
                cfg=runner.cfg.pretty_text,
                iteration=step.iteration,
                learning_rate=step.rate,
                precision=str(precision(runner)),
                loss_scale=_loss_scale(runner),
                rank=rank,
                world_size=get_world_size(),
            )
            with self._guard.as_before():
                save_step(_file(runner, which), step.iterations, model.state_dict(), meta)
        runner.logger.warning(f"It is saved: `python tools/replay.py {_file(runner, which)}` runs it again")

    def _stop(self, runner: Runner, step: _Step, reason: str) -> NoReturn:
        """Ends the run with a diagnosis of the last step."""
        found = all_gather_object(self._diagnose(runner, step))
        rank = next((rank for rank, one in enumerate(found) if one.where), 0)
        self._save(runner, step, "last", rank)
        on_rank = f" on rank {rank}" if get_world_size() > 1 else ""
        where = f"the first value that is not finite{on_rank} is the {found[rank].where}" if found[rank].where else ""
        _raise(
            runner,
            f"{self._in_a_row} steps in a row were not finite, the last at iteration {step.iteration}: {reason}; "
            f"{where or 'it was not reproduced'} (epoch {step.epoch}, learning rate {step.rate:.3g}, "
            f"precision {precision(runner)}, inputs {found[rank].inputs})",
        )

    def _diagnose(self, runner: Runner, step: _Step) -> Found:
        model: Any = unwrapped(runner)
        if isinstance(model, MomentumModel):
            model.finish_step(None)  # of the iteration that has begun
        model.zero_grad()
        assert self._guard is not None
        with self._guard.as_before():
            kind = next(model.parameters()).device.type
            dtype = precision(runner)
            context = nullcontext if dtype == torch.float32 else partial(torch.autocast, kind, dtype=dtype)
            try:
                return run_step(model, step.iterations, context, _loss_scale(runner))
            except RuntimeError as error:  # such as too little memory
                return Found(None, f"unknown, the step cannot be run again: {error}", [])


def check_state(runner: Runner, iteration: int) -> None:
    """Raises :class:`DivergenceError` if a weight, buffer or optimizer state is not finite on any rank. Collective."""
    for hook in runner.hooks:
        if isinstance(hook, DivergenceHook):
            hook.settle(runner)
    if names := non_finite_state(runner):
        _raise(runner, f"after iteration {iteration} {_some(names)} not finite")


def _changed(runner: Runner) -> list[Tensor]:
    """Returns the tensors outside of the optimizer that an iteration changes."""
    model = unwrapped(runner)
    found: list[Tensor] = list(model.buffers())
    if isinstance(model, ViewModel):
        found += model.changed_by_hooks()
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            found += [*hook.ema_model.parameters(), *hook.ema_model.buffers()]
    return list({id(tensor): tensor for tensor in found}.values())


def _loss_scale(runner: Runner) -> float:
    scaler = loss_scaler(runner)
    return 1.0 if scaler is None else float(scaler.get_scale())


def _file(runner: Runner, which: str) -> str:
    return os.path.join(runner.work_dir, f"skipped_step_{which}.pt")


def _terms(found: list[list[str]]) -> str:
    """Describes the loss terms of all ranks that are not finite."""
    ranked = [
        f"{term} on rank {rank}" if len(found) > 1 else term for rank, terms in enumerate(found) for term in terms
    ]
    return shortened(ranked, 4) if ranked else "a gradient or buffer is not finite, the loss is"


def _raise(runner: Runner, reason: str) -> NoReturn:
    """Ends the run with the reason and the remedies."""
    found = [runner.message_hub.runtime_info.get("last_ckpt")]
    found += [find_latest_checkpoint(runner.work_dir)] if runner._resume else []
    good = next((one for one in found if one and ("://" in one or os.path.exists(one))), None)
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
