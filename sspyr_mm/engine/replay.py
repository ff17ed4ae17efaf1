"""Saves a training step, runs it again, and finds the first module whose output or gradient is not finite."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from sspyr_mm.files import whole_file
from sspyr_mm.models import MomentumModel


class Iteration(NamedTuple):
    """What an iteration is a function of, next to the state of the model.

    Args:
        batch: Batch as the loader gave it.
        random_states: States of torch's generators: the CPU's and, on a GPU, that device's.
    """

    batch: Mapping[str, Any]
    random_states: list[Tensor]

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "Iteration":
        """Keeps a batch and the current random states."""
        on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
        return cls(batch, [torch.get_rng_state(), *on_gpu])


class Found(NamedTuple):
    """The first value that is not finite.

    Args:
        where: Description of it; None if all are finite.
        inputs: Range of the model's inputs.
        losses: Loss terms of each iteration.
    """

    where: str | None
    inputs: str
    losses: list[dict[str, float]]


def save_step(path: str, iterations: Sequence[Iteration], state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Writes a step and the state before it, as a checkpoint of pre-training with the key ``step``, atomically.

    Args:
        path: File to write.
        iterations: Iterations of the step.
        state: State dict of the model.
        meta: Numbers and texts; ``cfg`` is the config of the run.
    """
    step = [{"inputs": one.batch["inputs"], "random_states": one.random_states} for one in iterations]
    with whole_file(path) as partial_file:
        tensors = {name: x.cpu() if isinstance(x, Tensor) else x for name, x in state.items()}
        torch.save({"meta": dict(meta), "state_dict": tensors, "step": step}, partial_file)


def run_step(
    model: Any, iterations: Sequence[Iteration], context: Callable[[], AbstractContextManager], scale: float = 1.0
) -> Found:
    """Runs forward and backward passes of a step; collective if the model's loss is. Weights are unchanged.

    Args:
        model: Model in training mode, without gradients.
        iterations: Iterations of the step.
        context: Maker of the context of a forward pass, such as autocast.
        scale: Factor of the loss before the backward pass, as by loss scaling.
    """
    found: list[str] = []
    handles = [
        module.register_forward_hook(partial(_check_output, found, f"{name} ({type(module).__name__})"))
        for name, module in model.named_modules()
        if name
    ]
    ranges, computed = [], []
    try:
        for one in iterations:
            torch.set_rng_state(one.random_states[0])
            if len(one.random_states) > 1 and torch.cuda.is_initialized():
                torch.cuda.set_rng_state(one.random_states[1])
            with context():
                data = model.data_preprocessor(one.batch, True)
                given = list(_floats(data["inputs"]))
                ranges += [x.aminmax() for x in [x for x in given if x.ndim > 3] or given]  # images, not their boxes
                losses = model(**data, mode="loss")
            total, terms = model.parse_losses(losses)
            computed.append({name: float(value) for name, value in terms.items() if "loss" in name})
            found += [
                f"loss term {name}: {_kind(value)}"
                for name, value in terms.items()
                if "loss" in name and not value.isfinite()
            ]
            (total * scale).backward()
            found += [
                f"gradient of {name}: {_kind(p.grad)}"
                for name, p in model.named_parameters()
                if p.grad is not None and not p.grad.isfinite().all()
            ]
            if isinstance(model, MomentumModel):
                model.finish_step(None)
    finally:
        for handle in handles:
            handle.remove()
    low, high = (float(torch.stack([x[i].float() for x in ranges]).aminmax()[i]) for i in range(2))
    return Found(found[0] if found else None, f"{low:.4g} to {high:.4g}", computed)


def _check_output(found: list[str], name: str, module: nn.Module, args: Any, output: Any) -> None:
    for tensor in _floats(output):
        if not found and not tensor.isfinite().all():
            found.append(f"output of {name}: {_kind(tensor)}")
        if tensor.requires_grad:
            tensor.register_hook(partial(_check_gradient, found, name))


def _check_gradient(found: list[str], name: str, gradient: Tensor) -> None:
    if not found and not gradient.isfinite().all():
        found.append(f"gradient of the output of {name}: {_kind(gradient)}")


def _floats(tree: Any) -> Iterator[Tensor]:
    yield from (x for x in tree_flatten(tree)[0] if isinstance(x, Tensor) and x.is_floating_point() and x.numel())


def _kind(tensor: Tensor) -> str:
    return "NaN" if tensor.isnan().any() else "infinite"
