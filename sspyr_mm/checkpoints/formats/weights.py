"""The one dict of tensors in a file, and what stands beside it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

CONTAINERS = ("state_dict", "online_network_state_dict", "model")
"""Entries that hold a network's tensors, where the file is not itself such a dict."""


@dataclass(frozen=True)
class Weights:
    """Tensors as a file has them, only without the prefix of a parallel wrapper.

    Args:
        tensors: By name.
        container: Entry of the file they are in; None for the file itself.
        meta: The file's ``meta``, empty if it has none.
        entries: The file's other entries.
    """

    tensors: dict[str, Tensor]
    container: str | None
    meta: dict[str, Any]
    entries: dict[str, Any]


def find_weights(checkpoint: dict[str, Any], *, where: str) -> Weights:
    """Finds the tensors of a checkpoint.

    Args:
        checkpoint: As :func:`read_checkpoint` returns it.
        where: The file, for messages.

    Returns:
        The tensors; numpy arrays among them as tensors.

    Raises:
        ValueError: If there are none, or several sets of them.
    """
    meta = checkpoint.get("meta")
    # First: beside a container a training script may leave single tensors, the best accuracy for instance.
    found = [name for name in CONTAINERS if _has_arrays(checkpoint.get(name))]
    if not found and _has_arrays(checkpoint):
        container, state = None, checkpoint
    else:
        if len(found) != 1:
            raise ValueError(
                f"{where} holds {'several networks, under ' + ', '.join(found) if found else 'no tensors'}; wanted are "
                f"tensors by name, in the file itself or in one of {', '.join(CONTAINERS)}. It holds {few(checkpoint)}"
            )
        container, state = found[0], checkpoint[found[0]]
    tensors = {str(k): _tensor(v, f"{where}: {k}") for k, v in state.items() if _is_array(v)}
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): v for name, v in tensors.items()}
    return Weights(
        tensors=tensors,
        container=container,
        meta=meta if isinstance(meta, dict) else {},
        entries={k: v for k, v in checkpoint.items() if container and k not in (container, "meta")},
    )


def few(names: Any, number: int = 3) -> str:
    """The first names of a collection, for messages.

    Args:
        names: Names.
        number: How many of them.

    Returns:
        ``a, b, c, ...``
    """
    names = [str(name) for name in names]
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")


def _is_array(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _has_arrays(value: Any) -> bool:
    return isinstance(value, dict) and any(_is_array(v) for v in value.values())


def _tensor(value: Tensor | np.ndarray, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        return torch.from_numpy(value.copy())
    except TypeError as error:
        raise ValueError(f"{where} is an array that can't be a tensor: {error}") from error
