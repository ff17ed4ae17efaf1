"""The parts of a runner that hooks talk to."""

from mmengine.hooks import LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from sspyr_mm.models import SSPRL, SSPRLHead


def model_of(runner: Runner) -> SSPRL:
    """The runner's model, out of any wrapper.

    Raises:
        TypeError: If it is not :class:`SSPRL`.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not isinstance(model, SSPRL):
        raise TypeError(f"This hook works on SSPRL models, got {type(model).__name__}: remove it from the config")
    return model


def head_of(runner: Runner) -> SSPRLHead:
    """The head of the runner's model."""
    return model_of(runner).head


def accumulative_counts(runner: Runner) -> int:
    """Iterations whose gradients are added up for one step of the optimiser; 1 where each has its own."""
    # mmengine has no public name for it.
    return getattr(runner.optim_wrapper, "_accumulative_counts", 1)


def log_interval(runner: Runner) -> int:
    """Iterations between lines of the log; 1 where nothing is logged."""
    return min((h.interval for h in runner.hooks if isinstance(h, LoggerHook)), default=1)
