"""Summary of the contents of a checkpoint."""

from collections import Counter
from typing import Any

from sspyr_mm.checkpoints.backbone import completed, describe
from sspyr_mm.checkpoints.formats.locate import locate
from sspyr_mm.checkpoints.formats.weights import Selection, Weights, find_weights
from sspyr_mm.tensor_files import FilePath, read_checkpoint


def inspect_checkpoint(
    path: FilePath, *, allow_pickle: bool = False, select: Selection | None = None
) -> dict[str, Any]:
    """Summarises a checkpoint, executing nothing in it. Arguments and errors: see :func:`read_backbone`.

    Returns:
        Plain values: ``file``, ``format``, ``architecture``, ``backbone`` (config), ``key``, ``prefix`` and ``place``
        (a description, with decisions about other networks), ``num_tensors`` and ``num_parameters`` of the backbone,
        ``mean``, ``std``, ``decoding``, ``patch``, ``other_tensors`` (number by module, without the backbone),
        ``other_entries`` of the file, ``epoch``, ``iter`` and ``sha256``.
    """
    weights = find_weights(read_checkpoint(path, allow_pickle=allow_pickle), path, select)
    found = locate(weights)
    checkpoint = completed(found, weights)
    state = checkpoint.state_dict
    taken = {id(tensor) for tensor in found.state_dict.values()}
    rest = [name for name, tensor in weights.tensors.items() if id(tensor) not in taken]
    buffers = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index")
    return {
        "file": str(path),
        "format": checkpoint.source,
        "architecture": describe(checkpoint.backbone),
        "backbone": checkpoint.backbone,
        "key": checkpoint.key,
        "prefix": checkpoint.prefix,
        "place": checkpoint.place,
        "num_tensors": len(state),
        "num_parameters": sum(v.numel() for k, v in state.items() if not k.endswith(buffers)),
        "mean": checkpoint.mean,
        "std": checkpoint.std,
        "decoding": checkpoint.decoding,
        "patch": checkpoint.patch,
        "other_tensors": dict(Counter(map(_module, rest))),
        "other_entries": sorted(map(str, weights.entries)),
        "epoch": _number("epoch", weights),
        "iter": _number("iter", weights),
        "sha256": checkpoint.sha256,
    }


def _module(name: str) -> str:
    """Returns the first component of a name; mmcv's averaged weights are buffers named ``ema_`` with underscores."""
    if name.startswith("ema_") and "." not in name:
        return "ema_*"
    return name.rpartition(".")[0].split(".")[0] or name


def _number(key: str, weights: Weights) -> int | None:
    value = weights.entries.get(key, weights.meta.get(key))
    return value if isinstance(value, int) else None
