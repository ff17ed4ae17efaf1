"""What a piece of code asks of the device and of other processes, counted: the same numbers on every machine."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

_READS_A_VALUE = {
    "aten._local_scalar_dense",  # item(), float(), tolist() of one, `if tensor`
    "aten._unique2",
    "aten.bincount",
    "aten.equal",
    "aten.masked_select",
    "aten.nonzero",
    "aten.repeat_interleave",  # by a tensor of counts; by a number it is other operators
    "aten.unique_consecutive",
    "aten.unique_dim",
}
"""Operators after which the host waits for the device, since their result, or its shape, is a value."""
_INDEXES = {"aten._unsafe_index", "aten.index", "aten.index_put", "aten.index_put_"}
"""Operators that are such where an index is a mask."""
_COLLECTIVES = ("c10d.", "_c10d_functional.")
_GIVEN = {"c10d.allgather_": 1, "c10d.reduce_scatter_": 1}
"""Which argument of a collective holds what this process gives; of all others the first."""


@dataclass
class Counts:
    """What was counted.

    Args:
        operators: Calls of operators by name, collectives not among them.
        host_syncs: Times the host waited for a value of the device; on a CPU, times it would have.
        collectives: Names of the collectives that were called, in order.
        bytes_given: What this process handed to collectives.
        allocated: Bytes of new tensors; views and results in place are none.
    """

    operators: Counter[str] = field(default_factory=Counter)
    host_syncs: Counter[str] = field(default_factory=Counter)
    collectives: list[str] = field(default_factory=list)
    bytes_given: int = 0
    allocated: int = 0


class OperatorCounter(TorchDispatchMode):
    """Counts what runs inside, backward passes and collectives included: see :class:`Counts`.

    Counts are the same for a step on a CPU as on a GPU, where ``torch.cuda.set_sync_debug_mode`` can confirm them,
    except for ``tolist``, which is no operator on a CPU, and for copies between host and device, which a CPU lacks.

    Args:
        on_host: Tensors that are on the host wherever the step runs; reading them does not count as a wait.
    """

    def __init__(self, *, on_host: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.counts = Counts()
        self._on_host = {_storage(tensor) for tensor in on_host}

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None) -> Any:
        """Counts one call and passes it on."""
        name = func.overloadpacket._qualified_op_name.replace("::", ".")
        given = _tensors((args, kwargs))
        result = func(*args, **(kwargs or {}))
        if name.startswith(_COLLECTIVES):
            self.counts.collectives.append(name)
            handed = _tensors(args[_GIVEN.get(name, 0)])
            self.counts.bytes_given += sum(x.numel() * x.element_size() for x in handed)
            return result
        self.counts.operators[name] += 1
        read_on_host = bool(given) and all(_storage(x) in self._on_host for x in given)
        if _waits(name, args, given, result) and not read_on_host:
            self.counts.host_syncs[name] += 1
        known = {_storage(tensor) for tensor in given}
        new = {_storage(x): x.untyped_storage().nbytes() for x in _tensors(result)}
        self.counts.allocated += sum(size for storage, size in new.items() if storage not in known)
        return result


def _waits(name: str, args: tuple, given: Sequence[Tensor], result: Any) -> bool:
    """Whether the host waits for the device."""
    if name == "aten._to_copy":
        return result.device.type == "cpu" and given[0].device.type != "cpu"
    return name in _READS_A_VALUE or (name in _INDEXES and _has_mask(args))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def _has_mask(args: tuple) -> bool:
    return any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1]))
