"""Counts the collectives a piece of code calls."""

from torch.utils._python_dispatch import TorchDispatchMode


class CountCollectives(TorchDispatchMode):
    """`.calls`: names of the c10d operators in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional"):
            self.calls.append(func.__name__)
        return func(*args, **(kwargs or {}))
