"""Recomputation of activations in the backward pass, to save memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from sspyr_mm.models.layers.grouped_norm import current_rows_per_image, rows_per_image

_STAGES = ("stages", "layers")
"""Attributes in which backbones other than ResNets hold their stages or blocks."""


def recomputed(function: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Tensor:
    """Returns ``function(x)``, but keeps only ``x`` for the backward pass.

    Values, gradients and the final state of the module equal those of ``function(x)``: both passes draw the same random
    numbers, and only the first updates running averages of norm layers.

    Args:
        function: Function to run, with layers of ``module``.
        module: Module that contains the norm layers.
        x: Input of any shape.

    Returns:
        Output of ``function``.

    Source: Chen et al., arXiv 1604.06174; per scale, the gradient cache of Gao et al., arXiv 2101.06983, whose
    two passes are autograd's here.
    """
    contexts = partial(_contexts, module)
    rows = current_rows_per_image()  # the backward pass runs outside of the caller's context

    def run(given: Tensor) -> Tensor:
        with rows_per_image(rows):
            return function(given)

    return checkpoint(partial(_uncached, run), x, use_reentrant=False, context_fn=contexts)


def _uncached(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a function without autocast's weight cache, whose entries from an earlier pass would not be recomputed."""
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
    """Makes norm layers use batch statistics without updating their running averages and counters of batches."""
    layers = [m for m in module.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    # Not track_running_stats, with which autograd would save other tensors than in the first pass.
    for layer in layers:
        count = layer.num_batches_tracked
        layer.momentum, layer.num_batches_tracked = 0.0, None if count is None else count.clone()
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """Returns the stages of a backbone in order.

    Args:
        backbone: Backbone of mmpretrain.

    Returns:
        Modules that map a tensor to a tensor.

    Raises:
        ValueError: If the backbone has no known stages.
    """
    if isinstance(names := getattr(backbone, "res_layers", None), list):
        return [getattr(backbone, name) for name in names]
    for name in _STAGES:
        if isinstance(found := getattr(backbone, name, None), (nn.ModuleList, nn.Sequential)):
            return list(found.children())
    raise ValueError(
        f"recompute='stage' needs a backbone with stages, {type(backbone).__name__} has no known ones "
        f"(res_layers, {', '.join(_STAGES)}): use recompute='scale'"
    )


def recompute_stages(backbone: nn.Module) -> None:
    """Makes every stage of a backbone recompute its activations, in place; names in its state dict do not change.

    Raises:
        ValueError: If the backbone has no known stages.
    """
    for stage in stages_of(backbone):
        stage.forward = partial(_forward_again, stage, stage.forward)


def _forward_again(
    stage: nn.Module, forward: Callable[..., Tensor], x: Tensor, *args: object, **kwargs: object
) -> Tensor:
    return recomputed(lambda given: forward(given, *args, **kwargs), stage, x)
