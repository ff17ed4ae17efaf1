"""Parts of a network whose activations are not kept but computed again in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

_STAGES = ("stages", "layers")
"""Where backbones other than ResNets keep their stages or blocks."""


def recomputed(function: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Tensor:
    """``function(x)``, of which only ``x`` is kept for the backward pass.

    The values, the gradients and the state of the module afterwards are those of ``function(x)``: random numbers are
    drawn alike both times, and running averages of norm layers are updated the first time only.

    Args:
        function: What to run, with layers of ``module``.
        module: Where norm layers are looked for.
        x: Any shape.

    Returns:
        What ``function`` returns.

    Source: Chen et al., arXiv 1604.06174; per scale, the gradient cache of Gao et al., arXiv 2101.06983, whose
    two passes are autograd's here.
    """
    contexts = partial(_contexts, module)
    return checkpoint(partial(_uncached, function), x, use_reentrant=False, context_fn=contexts)


def _uncached(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a function without autocast's cache of weights: what an earlier pass left there would not be made again."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        return function(x)
    finally:
        torch.set_autocast_cache_enabled(before)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _averages_stand(module)


@contextmanager
def _averages_stand(module: nn.Module) -> Iterator[None]:
    """Norm layers use their batch and leave their running averages, and the count of batches, as they are."""
    layers = [m for m in module.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    # Not track_running_stats: autograd would then find other tensors saved than the first time.
    for layer in layers:
        count = layer.num_batches_tracked
        layer.momentum, layer.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """The stages of a backbone, one after the other.

    Args:
        backbone: Of mmpretrain.

    Returns:
        Modules that map a tensor to a tensor.

    Raises:
        ValueError: If it has none that are known.
    """
    if isinstance(names := getattr(backbone, "res_layers", None), list):
        return [getattr(backbone, name) for name in names]
    for name in _STAGES:
        if isinstance(found := getattr(backbone, name, None), (nn.ModuleList, nn.Sequential)):
            return list(found.children())
    raise ValueError(
        f"recompute='stage' needs a backbone with stages, {type(backbone).__name__} has none that are known "
        f"(res_layers, {', '.join(_STAGES)}): use recompute='scale'"
    )


def recompute_stages(backbone: nn.Module) -> None:
    """Lets every stage of a backbone be computed again in the backward pass, in place; names of its state stay.

    Raises:
        ValueError: If it has no stages that are known.
    """
    for stage in stages_of(backbone):
        stage.forward = partial(_forward_again, stage, stage.forward)


def _forward_again(
    stage: nn.Module, forward: Callable[..., Tensor], x: Tensor, *args: object, **kwargs: object
) -> Tensor:
    return recomputed(lambda given: forward(given, *args, **kwargs), stage, x)
