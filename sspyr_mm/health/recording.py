"""Tensors that a training step computes anyway, kept for measures of its health."""

import torch
from torch import Tensor

_kept: dict[str, Tensor] | None = None


def start_recording() -> None:
    """Starts to keep tensors."""
    global _kept
    _kept = {}


def stop_recording() -> dict[str, Tensor]:
    """Ends it and returns the tensors by name, without gradient; empty if recording had not started."""
    global _kept
    found, _kept = _kept or {}, None
    return found


def record(name: str, *views: Tensor) -> None:
    """Keeps tensors while recording; the first of a name, since a recomputed forward pass gives them again.

    Args:
        name: ``embeddings.GROUP``, ``codes.GROUP``, ``patches`` or ``maps``.
        views: One tensor, or one per view, which are stacked. Embeddings are (V, N, D) of unit length and codes
            (2, N, K), rows by image, then by cell; the backbone's first input is (N, 3, P, P), its output (N, C, H, W),
            (N, L, C) or (N, C).
    """
    if _kept is not None and name not in _kept:
        _kept[name] = torch.stack([view.detach() for view in views]) if len(views) > 1 else views[0].detach()
