"""Checks tensors against a module before they are loaded.

mmengine loads non-strictly: without these checks a tensor that does not fit is a line in the log, and training
continues from random weights.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from sspyr_mm.files import shortened


class Differences(NamedTuple):
    """Names of tensors that do not fit; ``shapes`` are (name, given, wanted)."""

    missing: list[str]
    unexpected: list[str]
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]


def is_counter(name: str) -> bool:
    """Whether a tensor is batch norm's counter of batches, which a fixed momentum does not use."""
    return name.endswith("num_batches_tracked")


def compare_states(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> Differences:
    """Compares names and shapes of tensors.

    Counters of batch norm may be missing: old checkpoints have none.

    Args:
        given: Tensors by name.
        wanted: Those of the module, likewise.

    Returns:
        The differences, each in the order of its own dict.
    """
    return Differences(
        [n for n in wanted if n not in given and not is_counter(n)],
        [name for name in given if name not in wanted],
        [
            (name, tuple(given[name].shape), tuple(tensor.shape))
            for name, tensor in wanted.items()
            if name in given and given[name].shape != tensor.shape
        ],
    )


def check_head_state(head: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pre-hook of ``load_state_dict``: refuses a checkpoint of another pyramid.

    A checkpoint without any head (a backbone to start from) passes.

    Args:
        head: The head that is loaded into.
        state_dict: The checkpoint's tensors.
        prefix: The head's prefix in it.

    Raises:
        ValueError: If names or shapes differ; the message lists them and says how to repair it.
    """
    given = {name: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
    if not given:
        return
    missing, unexpected, shapes = compare_states(given, head.state_dict(prefix=prefix))
    lines = [f"  {name}: here, not in the checkpoint" for name in missing]
    lines += [f"  {name}: in the checkpoint, not here" for name in unexpected]
    lines += [f"  {name}: {came} in the checkpoint, {ours} here" for name, came, ours in shapes]
    if lines:
        raise ValueError(
            "The checkpoint was trained with another pyramid, variant or queue:\n"
            + "\n".join(lines)
            + "\nTrain with the config it was made with, or load the backbone alone: "
            "`python -m sspyr_mm export CKPT OUT` and "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='OUT')."
        )


def check_complete(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pre-hook of ``load_state_dict``: requires every tensor of a module, in its shape.

    Args:
        module: The module that is loaded into.
        state_dict: The checkpoint's tensors. Further ones (a classifier, say) are ignored.
        prefix: The module's prefix in it.

    Raises:
        ValueError: If a tensor is missing or has another shape; the message lists them and says how to repair it.
    """
    needed = module.state_dict(prefix=prefix)
    missing, _unexpected, shapes = compare_states(state_dict, needed)
    count = sum(not is_counter(name) for name in needed)
    if missing or shapes:
        sizes = [f"{name} {came}, here {ours}" for name, came, ours in shapes]
        raise ValueError(
            f"The checkpoint does not fit this {type(module).__name__}: {len(missing)} of {count} tensors are "
            f"missing ({shortened(missing, 3)}), {len(shapes)} have another shape ({shortened(sizes, 3)}). It "
            f"holds {shortened(list(state_dict), 3)}. For a backbone alone give its file, with the backbone's own "
            "names, as model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix=PREFIX); for a whole "
            "model, train with the config it was made with."
        )
