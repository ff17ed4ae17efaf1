"""Dynamic loss scaling on a CPU."""

import torch
from mmpretrain.registry import OPTIM_WRAPPERS

from sspyr_mm.engine.optim_wrapper import AutocastOptimWrapper


@OPTIM_WRAPPERS.register_module(force=True)
class ScaledWrapper(AutocastOptimWrapper):
    """Dynamic loss scaling as in mmengine's AmpOptimWrapper, which needs a GPU."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu")

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def state_dict(self):
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict):
        self.loss_scaler.load_state_dict(state_dict.pop("loss_scaler"))
        super().load_state_dict(state_dict)
