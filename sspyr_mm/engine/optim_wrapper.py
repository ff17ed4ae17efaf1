"""Mixed precision that also runs on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.runner.amp import autocast
from mmpretrain.registry import OPTIM_WRAPPERS
from torch import bfloat16, dtype, nn

__all__ = ["AutocastOptimWrapper"]


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16, on a GPU or on a CPU, without loss scaling.

    mmengine's ``AmpOptimWrapper`` cannot be built without a GPU. bfloat16 has the exponent range of float32, so that
    only the autocast context is needed. Stateless beyond ``OptimWrapper``.

    Args:
        dtype: Type of the autocast regions; only bfloat16 works everywhere and without loss scaling.
        **kwargs: Arguments of ``mmengine.optim.OptimWrapper`` (``optimizer``, ``accumulative_counts``, ``clip_grad``).

    Raises:
        ValueError: If ``dtype`` is not bfloat16.
    """

    def __init__(self, *, dtype: str | dtype = "bfloat16", **kwargs: Any) -> None:
        if dtype not in ("bfloat16", bfloat16):
            raise ValueError(
                f"AutocastOptimWrapper: dtype must be 'bfloat16', got {dtype!r}; float16 needs loss scaling: "
                "use AmpOptimWrapper(dtype='float16') on a GPU"
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enters autocast and the gradient accumulation context of ``OptimWrapper``, for one forward pass."""
        with super().optim_context(model), autocast(dtype=bfloat16):
            yield
