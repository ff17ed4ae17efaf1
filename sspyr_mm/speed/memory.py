"""How many bytes of tensors are alive at the worst moment: the same number on every machine."""

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sspyr_mm.models import SSPRL


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

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Runs one operator and looks at what came out."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
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


def step_bytes(model: SSPRL, batch_size: int, *, dtype: torch.dtype = torch.float32) -> int:
    """Most bytes alive during a forward and a backward pass; nothing is computed.

    Parameters, their gradients and the patches are among them, the optimiser's state and the regions are not.

    Args:
        model: In training mode, on the CPU; its parameters are fake afterwards, so it is of no more use.
        batch_size: Images.
        dtype: Other than float32: autocast's.

    Returns:
        Bytes.
    """
    with FakeTensorMode() as fake:
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                tensors.update(
                    {n: fake.from_tensor(t) for n, t in tensors.items() if t is not None}
                )
        patches = {
            g.name: torch.empty(g.num_views, batch_size, g.num_patches, 3, g.patch, g.patch)
            for g in model.pyramid.groups
        }
        lowered = torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
        with LiveBytes() as live, lowered:
            live.add([*model.parameters(), *model.buffers(), *patches.values()])
            losses = model.loss(patches)
            total = torch.stack([v for k, v in losses.items() if k.startswith("loss")]).sum()
            total.backward()
    return live.peak
