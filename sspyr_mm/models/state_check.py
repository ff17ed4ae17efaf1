"""Checks tensors against a module before they are loaded.

mmengine loads non-strictly: without these checks a mismatched tensor only causes a log line, and training continues
from random weights.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from sspyr_mm.files import shortened


class Differences(NamedTuple):
    """Names of mismatched tensors; ``shapes`` are (name, given, wanted)."""

    missing: list[str]
    unexpected: list[str]
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]


def is_counter(name: str) -> bool:
    """Returns whether a tensor is batch norm's counter of batches, which a fixed momentum does not use."""
    return name.endswith("num_batches_tracked")


def compare_states(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> Differences:
    """Compares names and shapes of tensors.

    Counters of batch norm may be missing, as in old checkpoints.

    Args:
        given: Tensors by name.
        wanted: Tensors of the module by name.

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


def check_head_state(part: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pre-hook of ``load_state_dict`` of a head or neck that rejects a checkpoint with other settings.

    A checkpoint without this part (a pretrained backbone) is accepted.

    Args:
        part: Head or neck to load.
        state_dict: Tensors of the checkpoint.
        prefix: Prefix of the part in it.

    Raises:
        ValueError: If names or shapes differ; the message lists them and the remedy.
    """
    given = {name: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
    if not given:
        return
    missing, unexpected, shapes = compare_states(given, part.state_dict(prefix=prefix))
    lines = [f"  {name}: in the model, not in the checkpoint" for name in missing]
    lines += [f"  {name}: in the checkpoint, not in the model" for name in unexpected]
    lines += [f"  {name}: {came} in the checkpoint, {ours} in the model" for name, came, ours in shapes]
    if lines:
        raise ValueError(
            "The checkpoint was trained with other settings of the model (method, pyramid, variant, queue, width):\n"
            + "\n".join(lines)
            + "\nTrain with the config of the checkpoint, or load the backbone alone: "
            "`python -m sspyr_mm export CKPT OUT` and "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='OUT')."
        )


def check_complete(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pre-hook of ``load_state_dict`` that requires every tensor of a module, in its shape.

    Args:
        module: Module to load.
        state_dict: Tensors of the checkpoint. Others, such as those of a classifier, are ignored.
        prefix: Prefix of the module in it.

    Raises:
        ValueError: If a tensor is missing or has another shape; the message lists them and the remedy.
    """
    needed = module.state_dict(prefix=prefix)
    missing, _unexpected, shapes = compare_states(state_dict, needed)
    count = sum(not is_counter(name) for name in needed)
    faults = [f"{len(missing)} of {count} tensors are missing ({shortened(missing, 3)})"] if missing else []
    if shapes:
        sizes = shortened([f"{name} {came}, expected {ours}" for name, came, ours in shapes], 3)
        faults.append(f"{len(shapes)} have another shape ({sizes})")
    if faults:
        # mmengine passes on only the tensors that begin with the prefix.
        holds = f"It holds {shortened(state_dict, 3)}" if state_dict else f"No tensor of it begins with {prefix!r}"
        raise ValueError(
            f"The checkpoint does not match this {type(module).__name__}: {', '.join(faults)}. {holds}. For a backbone "
            "alone, pass its file, with the backbone's own names, as "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix=PREFIX); for a whole model, train "
            "with the config of the checkpoint."
        )
