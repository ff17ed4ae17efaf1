"""A run that diverges stops with the reason and keeps its finite checkpoints."""

import math
import re

import pytest
import torch
from mmengine.runner import find_latest_checkpoint
from mmpretrain.registry import OPTIM_WRAPPERS
from small_runs import ITERS, train

from sspyr_mm.engine.hooks import DivergenceError
from sspyr_mm.engine.optim_wrapper import AutocastOptimWrapper


def poison(name, at):
    """Returns a function of the runner that sets a value of a tensor to NaN after an iteration, counted from 1."""

    def function(runner):
        if runner.iter + 1 != at:
            return
        with torch.no_grad():
            if name == "optimizer":
                param = runner.model.backbone.conv1.weight
                runner.optim_wrapper.optimizer.state[param]["exp_avg"][0] = math.nan
            else:
                runner.model.state_dict()[name].view(-1)[0] = math.nan

    return function


def is_finite(path):
    checkpoint = torch.load(path, weights_only=False)
    tensors = [*checkpoint["state_dict"].values()]
    for state in checkpoint["optimizer"]["state"].values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_diverged_run_stops_and_keeps_its_finite_checkpoints(config, tmp_path):
    options = {
        "train_cfg.max_epochs": 8,
        "default_hooks.checkpoint.max_keep_ckpts": 2,
        "default_hooks.logger.interval": 3,
        "param_scheduler": [dict(type="MultiStepLR", milestones=[3], gamma=1e34)],
    }
    with pytest.raises(DivergenceError) as caught:
        train(config, tmp_path, options)
    message = str(caught.value)
    found = re.search(r"(loss_\w+) became (nan|inf) at iteration (\d+) \(epoch 4, learning rate 3e\+31, ", message)
    assert found and 3 * ITERS < int(found[3]) <= 3 * ITERS + 3
    assert "not finite now" in message and "optim_wrapper.optimizer.lr" in message
    assert f"The last good checkpoint is {tmp_path}/epoch_3.pth" in message
    assert {path.name for path in tmp_path.glob("*.pth")} == {"epoch_2.pth", "epoch_3.pth"}
    assert all(is_finite(path) for path in tmp_path.glob("*.pth"))
    assert find_latest_checkpoint(str(tmp_path)) == f"{tmp_path}/epoch_3.pth"


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        ("backbone.conv1.weight", "backbone.conv1.weight is not finite"),
        ("head.queues.s0.embeddings", "head.queues.s0.embeddings is not finite"),
        ("optimizer", "exp_avg of backbone.conv1.weight is not finite"),
    ],
)
def test_state_is_checked_before_an_epoch_is_saved(config, tmp_path, tensor, named):
    """The losses are still finite."""
    options = {"train_cfg.max_epochs": 2, "default_hooks.checkpoint.max_keep_ckpts": 1}
    with pytest.raises(DivergenceError, match=re.escape(f"after iteration {2 * ITERS} {named}")):
        train(config, tmp_path, options, after_train_iter=poison(tensor, 2 * ITERS))
    (path,) = tmp_path.glob("*.pth")
    assert path.name == "epoch_1.pth" and is_finite(path)


def test_state_is_checked_before_an_iteration_is_saved(config, tmp_path):
    """Between two log lines, where no loss is read."""
    checkpoint = {"by_epoch": False, "interval": 3, "max_keep_ckpts": 1}
    options = {f"default_hooks.checkpoint.{name}": value for name, value in checkpoint.items()}
    options["default_hooks.logger.interval"] = 50
    with pytest.raises(DivergenceError, match=r"after iteration 9 .* not finite"):
        train(config, tmp_path, options, before_train_iter=poison("backbone.conv1.weight", 9))
    (path,) = tmp_path.glob("*.pth")
    assert path.name == "iter_6.pth" and is_finite(path)


def test_interrupt_saves_no_checkpoint_that_is_not_finite(config, tmp_path):
    def stop(runner):
        poison("backbone.conv1.weight", 2)(runner)
        for hook in runner.hooks:
            if type(hook).__name__ == "InterruptHook":
                hook._requested = runner.iter == 2

    options = {"default_hooks.logger.interval": 50}
    with pytest.raises(DivergenceError, match=r"There is no earlier checkpoint; nothing was saved"):
        train(config, tmp_path, options, before_train_iter=stop)
    assert not list(tmp_path.glob("*.pth"))


def test_checkpoint_that_is_not_finite_is_not_resumed(config, tmp_path):
    train(config, tmp_path, {"train_cfg.max_epochs": 1})
    path, name = tmp_path / "epoch_1.pth", "backbone.conv1.weight"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["state_dict"][name][:] = math.nan
    torch.save(checkpoint, path)
    with pytest.raises(DivergenceError, match=f"cannot start: {re.escape(name)} is not finite"):
        train(config, tmp_path, {"train_cfg.max_epochs": 1, "resume": True})


@OPTIM_WRAPPERS.register_module(force=True)
class ScaledWrapper(AutocastOptimWrapper):
    """Dynamic loss scaling as in mmengine's AmpOptimWrapper, which needs a GPU."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu")

    def update_params(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward()
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()
        self.optimizer.zero_grad()


def overflow(iterations):
    """Makes a loss and its gradients infinite in some iterations."""

    def attach(runner):
        def multiply(module, args, losses):
            if runner.iter in iterations:
                losses["loss_pyr_s0"] = losses["loss_pyr_s0"] * math.inf
            return losses

        if runner.epoch == 0:
            runner.model.register_forward_hook(multiply)

    return attach


def test_steps_skipped_by_loss_scaling_do_not_stop_the_run(config, tmp_path):
    options = {"optim_wrapper.type": "ScaledWrapper"}
    runner = train(config, tmp_path, options, before_train_epoch=overflow({1, 2, 6}))
    history = runner.message_hub.log_scalars["train/loss"].data[0]
    assert runner.iter == 3 * ITERS and [i for i, x in enumerate(history) if math.isinf(x)] == [1, 2, 6]
    assert is_finite(tmp_path / "epoch_3.pth")


def test_loss_scaling_that_skips_every_step_stops_the_run(config, tmp_path):
    options = {"optim_wrapper.type": "ScaledWrapper", "train_cfg.max_epochs": 9}
    with pytest.raises(DivergenceError, match=r"loss_pyr_s0 became inf at iteration 23 \(epoch 5"):
        train(config, tmp_path, options, before_train_epoch=overflow(range(3, 100)))


def test_without_loss_scaling_one_infinite_loss_stops_the_run(config, tmp_path):
    with pytest.raises(DivergenceError, match=r"loss_pyr_s0 became inf at iteration 3 "):
        train(config, tmp_path, before_train_epoch=overflow({2}))
