"""Losses of a user's own module, named in a config."""

from small_runs import train

LOSSES = """
from mmpretrain.registry import MODELS
from torch import nn


@MODELS.register_module()
class ConstantLoss(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, codes, log_probs):
        return self.value + 0 * (codes * log_probs[:2]).sum()


@MODELS.register_module()
class PerScaleLoss(nn.Module):
    def forward(self, codes, log_predictions, betas):
        return {f"loss_own_{s}": 8 * betas[s] + 0 * (codes * p).sum() for s, p in log_predictions.items()}
"""
CONFIG = """
_base_ = "{base}"
custom_imports = dict(imports=["sspyr_mm.registration", "losses_of_a_user"], allow_failed_imports=False)
model = dict(
    head=dict(
        swapped_loss=dict(_delete_=True, type="ConstantLoss", value=3.0),
        cross_scale_loss=dict(_delete_=True, type="PerScaleLoss"),
    )
)
"""


def test_run_trains_with_losses_of_the_users_module(config, tmp_path, monkeypatch):
    (tmp_path / "losses_of_a_user.py").write_text(LOSSES)
    (tmp_path / "config.py").write_text(CONFIG.format(base=config))
    monkeypatch.syspath_prepend(tmp_path)
    log = {}

    def look(runner):
        scalars = runner.message_hub.log_scalars.items()
        log.update({name.removeprefix("train/"): scalar.current() for name, scalar in scalars})

    train(tmp_path / "config.py", tmp_path, {"train_cfg.max_epochs": 1}, after_train_iter=look)
    found = {name: float(value) for name, value in log.items() if name.startswith("loss")}
    assert found == {  # alpha is 1 and 0.5, beta 0.5
        "loss": 8.5,
        "loss_pyr_s0": 3.0,
        "loss_pyr_s1": 1.5,
        "loss_own_s1": 4.0,
    }
    assert log["ce_ratio_s0"] > 0  # computed from the predictions, for any loss
