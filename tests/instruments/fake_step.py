"""Memory and work of a step that is never computed: the same numbers on every machine."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from sspyr_mm.models import SSPRL, FeatureQueue
from sspyr_mm.models.selfsup import ViewModel


class LiveBytes(TorchDispatchMode):
    """Counts bytes of tensors made inside as they come and go; of fake tensors, those of a step that is not computed.

    What an allocator keeps beyond that, and what a convolution library borrows for a moment, is not among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Counts tensors that were made before."""
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None) -> Any:
        """Runs one operator and looks at what came out."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_flatten(result)[0]:
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def step_bytes(model: ViewModel, batch_size: int, *, dtype: torch.dtype = torch.float32) -> int:
    """Most bytes alive during a forward and a backward pass; nothing is computed.

    Parameters, their gradients and the patches are among them, the optimiser's state and the regions are not.

    Args:
        model: In training mode, on the CPU; its parameters are fake afterwards, so it is of no more use.
        batch_size: Images.
        dtype: Other than float32: autocast's.

    Returns:
        Bytes.
    """
    with _fake(model, batch_size) as patches, LiveBytes() as live:
        live.add([*model.parameters(), *model.buffers(), *patches.values()])
        _step(model, patches, dtype)
    return live.peak


def step_flops(model: ViewModel, batch_size: int) -> int:
    """Floating-point operations of matrix products and convolutions in a forward and a backward pass; none is done.

    Args:
        model: As of :func:`step_bytes`.
        batch_size: Images.

    Returns:
        Operations; a multiplication and an addition are two.
    """
    with _fake(model, batch_size) as patches, _Flops() as counter:
        _step(model, patches, torch.float32)
    return counter.total


class _Flops(TorchDispatchMode):
    """torch's ``FlopCounterMode`` without its tree of modules, which wants the input to have a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None) -> Any:
        """Counts one operator."""
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


@contextmanager
def _fake(model: ViewModel, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """Replaces a model's tensors by fake ones; yields patches of that kind. Queues are full: fakes have no count."""
    for module in model.modules():
        if isinstance(module, FeatureQueue):
            module.set_extra_state(torch.tensor(module.length))
    with FakeTensorMode() as fake:
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                tensors.update({n: fake.from_tensor(t) for n, t in tensors.items() if t is not None})
        yield make_inputs(model, batch_size)


def make_inputs(model: ViewModel, batch_size: int) -> dict[str, Tensor]:
    """Makes the inputs of a model's loss, with patches of random values."""
    inputs = {}
    for g in model.views.groups:
        inputs[g.name] = torch.rand(g.num_views, batch_size, g.num_patches, 3, g.patch, g.patch)
        if num_boxes := 2 if g.paste else int(bool(g.overlap)):
            corners = torch.tensor([0.25, 0.25, 0.75, 0.75]) * g.patch
            inputs[f"{g.name}_boxes"] = corners.expand(g.num_views, batch_size, num_boxes, 4).clone()
    if not isinstance(model, SSPRL):
        inputs["seed"] = torch.arange(batch_size)
    return inputs


def _step(model: ViewModel, patches: dict[str, Tensor], dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        losses = model.loss(patches)
    torch.stack([v for k, v in losses.items() if k.startswith("loss")]).sum().backward()
