"""Access to the parts of a runner that hooks use."""

from typing import TypeVar

from mmengine.hooks import LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

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


def accumulative_counts(runner: Runner) -> int:
    """Returns the number of iterations whose gradients are accumulated for one optimizer step; 1 by default."""
    # mmengine has no public attribute for it.
    return getattr(runner.optim_wrapper, "_accumulative_counts", 1)


def log_interval(runner: Runner) -> int:
    """Returns the number of iterations between log lines; 1 if nothing is logged."""
    return min((h.interval for h in runner.hooks if isinstance(h, LoggerHook)), default=1)


def is_line_due(runner: Runner, batch_idx: int) -> bool:
    """Returns whether ``LoggerHook`` may write a line after this iteration."""
    return (batch_idx + 1) % log_interval(runner) == 0 or batch_idx + 1 == len(runner.train_dataloader)
