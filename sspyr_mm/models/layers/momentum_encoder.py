"""Copy of an encoder that follows it slowly."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.ModuleDict):
    """Momentum copy phi of trained modules theta: ``phi = m * phi + (1 - m) * theta``, parameters only.

    Buffers such as running averages are its own. State: parameters without gradient and buffers, in the checkpoint.
    A checkpoint without them, such as one of a backbone, sets them to the trained modules' values.

    Args:
        trained: Modules to copy, by name.

    Source: MoCo, equation 2; BYOL, equation 1.
    """

    def __init__(self, trained: Mapping[str, nn.Module]) -> None:
        super().__init__({name: copy.deepcopy(module) for name, module in trained.items()})
        self.requires_grad_(False)
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
        """Pre-hook of the model's ``load_state_dict`` that adds the copies to a checkpoint without any."""
        own = next(name for name, module in model.named_modules() if module is self) + "."
        if any(name.startswith(prefix + own) for name in state_dict):
            return
        for part in self._trained[0]:
            found = {name: x for name, x in state_dict.items() if name.startswith(f"{prefix}{part}.")}
            state_dict.update({prefix + own + name.removeprefix(prefix): x for name, x in found.items()})


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
