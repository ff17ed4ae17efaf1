"""Access to the parts of a runner that hooks use."""

from collections.abc import Iterator
from contextlib import ContextDecorator
from typing import TypeVar

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.cuda.amp import GradScaler

from sspyr_mm.models import SSPRL, SSPRLHead, ViewModel

Model = TypeVar("Model", bound=ViewModel)


def unwrapped(runner: Runner) -> nn.Module:
    """Returns the runner's model without a wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def model_of(runner: Runner, kind: type[Model] = ViewModel) -> Model:
    """Returns the runner's model; raises TypeError if it is not a pre-training model of a kind."""
    model = unwrapped(runner)
    if not isinstance(model, kind):
        name = "pre-training" if kind is ViewModel else kind.__name__
        raise TypeError(
            f"This hook requires a model of type {name}, got {type(model).__name__}: remove it from the config"
        )
    return model


def head_of(runner: Runner) -> SSPRLHead:
    """Returns the head of the runner's model, which must be :class:`SSPRL`."""
    return model_of(runner, SSPRL).head


def run_within(runner: Runner, context: ContextDecorator) -> None:
    """Runs the training loop, if there is one, within a context; mmengine calls no hook where a run fails."""
    loop = runner._train_loop  # a config if nothing is trained; runner.train_loop would build it
    if isinstance(loop, BaseLoop):
        loop.run = context(loop.run)


def accumulative_counts(runner: Runner) -> int:
    """Returns the number of iterations whose gradients are accumulated for one optimizer step; 1 by default."""
    # mmengine has no public attribute for it.
    return getattr(runner.optim_wrapper, "_accumulative_counts", 1)


def images_per_iteration(runner: Runner) -> int:
    """Returns the number of images of all processes in an iteration."""
    loader = runner.train_dataloader
    return (loader.batch_size or loader.batch_sampler.batch_size) * get_world_size()


def log_interval(runner: Runner) -> int:
    """Returns the number of iterations between log lines; 1 if nothing is logged."""
    return min((h.interval for h in runner.hooks if isinstance(h, LoggerHook)), default=1)


def is_line_due(runner: Runner, batch_idx: int) -> bool:
    """Returns whether ``LoggerHook`` may write a line after this iteration."""
    return (batch_idx + 1) % log_interval(runner) == 0 or batch_idx + 1 == len(runner.train_dataloader)


def saves_checkpoint(runner: Runner, *, by_epoch: bool) -> bool:
    """Returns whether a ``CheckpointHook`` saves after this epoch, or this iteration; mmengine's own condition."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.by_epoch == by_epoch:
            due, is_last = (
                (hook.every_n_epochs, hook.is_last_train_epoch)
                if by_epoch
                else (hook.every_n_train_iters, hook.is_last_train_iter)
            )
            if due(runner, hook.interval, hook.save_begin) or (hook.save_last and is_last(runner)):
                return True
    return False


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
    for wrapper in optim_wrappers(runner):
        for param, state in wrapper.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"{key} of {names.get(param, 'a parameter')}", value, False


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """Returns the wrappers of all optimizers."""
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return list(wrapper.optim_wrappers.values())
    return [wrapper] if isinstance(wrapper, OptimWrapper) else []  # a config until training starts


def is_within_step(runner: Runner) -> bool:
    """Returns whether gradients are accumulated for an optimizer step that is not complete."""
    return not all(wrapper.should_update() for wrapper in optim_wrappers(runner))


def precision(runner: Runner) -> torch.dtype:
    """Returns the type of autocast regions; float32 without them."""
    for wrapper in optim_wrappers(runner):
        if isinstance(wrapper, AmpOptimWrapper):
            return wrapper.cast_dtype or torch.float16
        if cast := getattr(wrapper, "cast_dtype", None):  # AutocastOptimWrapper
            return cast
    return torch.float32


def loss_scaler(runner: Runner) -> GradScaler | None:
    """Returns the scaler of the loss, None if losses are not scaled."""
    scalers = (getattr(wrapper, "loss_scaler", None) for wrapper in optim_wrappers(runner))
    return next((scaler for scaler in scalers if scaler is not None and scaler.is_enabled()), None)
