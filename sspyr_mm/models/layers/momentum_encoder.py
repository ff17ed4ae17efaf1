"""Exponential moving average of an encoder."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.ModuleDict):
    """Momentum copy phi of trained modules theta: ``phi = m * phi + (1 - m) * theta``, parameters only.

    Buffers such as running averages are not copied from the trained modules. State: parameters without gradient and
    buffers, in the checkpoint.
    A checkpoint without one of the modules, such as one of a backbone, sets it to the trained module's values.

    Args:
        trained: Modules to copy, by name.

    Source: MoCo, equation 2; BYOL, equation 1.
    """

    def __init__(self, trained: Mapping[str, nn.Module]) -> None:
        super().__init__({name: copy.deepcopy(module) for name, module in trained.items()})
        self.requires_grad_(False)
        self.is_loaded = False  # whether a checkpoint was loaded since the last change of this flag
        # A list is not registered: the trained modules belong to the model.
        self._trained = [dict(trained)]

    def reset(self) -> None:
        """Sets parameters and buffers to the trained modules'."""
        for name, module in self._trained[0].items():
            for mine, theirs in zip(_tensors(self[name]), _tensors(module), strict=True):
                mine.data.copy_(theirs.data)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Moves the parameters towards the trained ones, without waiting for the device.

        Args:
            momentum: m, in [0, 1].
        """
        trained: list[Tensor] = [p for name in self._trained[0] for p in self._trained[0][name].parameters()]
        mine: list[Tensor] = [p for name in self._trained[0] for p in self[name].parameters()]
        torch._foreach_lerp_(mine, trained, 1 - momentum)

    def fill_missing(self, model: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Pre-hook of the model's ``load_state_dict`` that adds copies of the modules that a checkpoint lacks."""
        self.is_loaded = True
        own = next(name for name, module in model.named_modules() if module is self) + "."
        for part, module in self._trained[0].items():
            if any(name.startswith(f"{prefix}{own}{part}.") for name in state_dict):
                continue
            for name, value in module.state_dict(prefix=f"{part}.").items():
                state_dict[f"{prefix}{own}{name}"] = state_dict.get(prefix + name, value)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
