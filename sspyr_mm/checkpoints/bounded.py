"""Bounds on networks that a config inside a checkpoint asks for."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sspyr_mm.checkpoints.formats.resnet import stored_numbers
from sspyr_mm.machine import limited

_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_INITIALISERS = {
    Tensor.uniform_,
    Tensor.normal_,
    *(getattr(nn.init, f"{kind}{name}_") for kind in ("", "kaiming_", "xavier_") for name in ("uniform", "normal")),
}
_FREE_NUMBERS, _FREE_TENSORS = 10_000_000, 2_000
"""What a network may have in addition, such as tables of positions."""
_FREE_SECONDS, _NUMBERS_PER_SECOND = 20.0, 10_000_000
"""Time of the CPU to build a network."""


@contextmanager
def bounded_network(tensors: Iterable[Any]) -> Iterator[None]:
    """Context in which a network is built whose tensors are those of a file; one that is much larger is a ValueError.

    Without it, a file of a few kilobytes could ask for any amount of memory or time. Parameters are not given random
    values, which those of the file replace.

    Args:
        tensors: Tensors of the file.
    """
    given = [one for one in tensors if isinstance(one, Tensor)]
    numbers = 16 * stored_numbers(given) + _FREE_NUMBERS
    seconds = _FREE_SECONDS + numbers / _NUMBERS_PER_SECOND
    with (
        UnfilledParameters(),
        _BoundedTensors(numbers, 10 * len(given) + _FREE_TENSORS),
        limited(num_bytes=8 * numbers, seconds=seconds),
    ):
        yield


class UnfilledParameters(TorchFunctionMode):
    """Context in which parameters that would get random values are left uninitialised, which takes no time."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _INITIALISERS:
            tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


class _BoundedTensors(TorchFunctionMode):
    """Counts the tensors that are made, and their numbers."""

    def __init__(self, numbers: int, tensors: int) -> None:
        super().__init__()
        self.numbers, self.tensors = numbers, tensors

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
