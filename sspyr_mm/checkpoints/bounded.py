"""Bound on networks that a config inside a checkpoint asks for."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_FREE_NUMBERS, _FREE_TENSORS = 10_000_000, 2_000
"""What a network may have in addition, such as tables of positions."""


class BoundedNetwork(TorchFunctionMode):
    """Context in which a network is built whose tensors are those of a file; one that is much larger is a ValueError.

    Without it, a file of a few kilobytes could ask for any amount of memory or time.

    Args:
        tensors: Tensors of the file.
    """

    def __init__(self, tensors: Iterable[Any]) -> None:
        super().__init__()
        counts = [one.numel() for one in tensors if isinstance(one, Tensor)]
        self.numbers = 16 * sum(counts) + _FREE_NUMBERS
        self.tensors = 10 * len(counts) + _FREE_TENSORS

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKERS:
            given = kwargs.get("size", args[0] if args and isinstance(args[0], (tuple, list)) else args)
            self.numbers -= math.prod(n for n in given if isinstance(n, int))
            self.tensors -= 1
            if self.numbers < 0 or self.tensors < 0:
                raise ValueError(
                    "the config inside asks for a network that is much larger than the tensors of the file: it is "
                    "damaged, or of another network"
                )
        return func(*args, **kwargs)
