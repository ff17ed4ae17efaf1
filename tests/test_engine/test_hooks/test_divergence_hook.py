"""A run that diverges stops with the reason and keeps its finite checkpoints."""

import math
import re

import pytest
import scaled_wrapper  # noqa: F401
import torch
from mmengine.runner import find_latest_checkpoint
from small_runs import ITERS, assert_equal, state, train, warnings_of

from sspyr_mm.engine.hooks import DivergenceError, DivergenceHook


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
    for entries in checkpoint["optimizer"]["state"].values():
        tensors += [value for value in entries.values() if isinstance(value, torch.Tensor)]
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
    found = re.search(r"the last at iteration (\d+): (loss_\w+) is (nan|inf), .*learning rate 3e\+31, ", message)
    assert found and int(found[1]) == 3 * ITERS + 4  # the first step of the epoch makes the weights too large
    assert "is the output of backbone." in message and "optim_wrapper.optimizer.lr" in message
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


def overflow(iterations):
    """Makes a loss and its gradients infinite in some iterations."""

    def attach(runner):
        def multiply(module, args, losses):
            if runner.iter in iterations:
                losses["loss_pyr_s0"] = losses["loss_pyr_s0"] * math.inf
            return losses

        if runner.epoch == 0:
            runner.model.register_forward_hook(multiply, prepend=True)  # before that of the guard

    return attach


def test_steps_skipped_by_loss_scaling_do_not_stop_the_run(config, tmp_path, log):
    options = {"optim_wrapper.type": "ScaledWrapper"}
    runner = train(config, tmp_path, options, before_train_epoch=overflow({1, 2, 6, 7, 8, 9}))
    history = runner.message_hub.log_scalars["train/loss"].data[0]
    assert runner.iter == 3 * ITERS
    assert [i for i, x in enumerate(history) if math.isinf(x)] == [1, 2, 6, 7, 8, 9]
    assert is_finite(tmp_path / "epoch_3.pth")
    assert any("6 discarded so far, 4 in a row (20 stop the run)" in message for message in warnings_of(log))


def test_buffers_and_queues_are_kept_where_loss_scaling_skips(config, tmp_path, log):
    """Buffers and queues that a NaN image has reached are restored; the scale is reduced."""
    states, scales = {}, []

    def spoil(runner):
        states[runner.iter] = state(runner)
        scales.append(runner.optim_wrapper.loss_scaler.get_scale())
        if runner.iter == 0:
            runner.model.backbone.register_forward_pre_hook(lambda module, args: (args[0] * multiplier[0],))
        multiplier[0] = math.nan if runner.iter == 2 else 1

    multiplier = [1]
    options = {"optim_wrapper.type": "ScaledWrapper", "train_cfg.max_epochs": 1}
    train(config, tmp_path, options, before_train_iter=spoil)
    assert_equal(states[3], states[2])
    assert scales[3] == scales[2] / 2 and scales[2] == scales[0]
    assert not torch.equal(states[4]["head.queues.s0.embeddings"], states[3]["head.queues.s0.embeddings"])


def test_gradients_that_overflow_are_left_to_loss_scaling(config, tmp_path, log):
    """The forward pass is sound: buffers and queues keep what it has changed, as without the hook."""
    options = {"optim_wrapper.type": "ScaledWrapper", "train_cfg.max_epochs": 1}

    def attach(runner):
        weight = runner.model.backbone.conv1.weight
        weight.register_hook(lambda grad: grad * math.inf if runner.iter == 2 else None)

    with_hook = train(config, tmp_path / "with", options, before_train_epoch=attach)
    without = train(config, tmp_path / "without", options, without="divergence", before_train_epoch=attach)
    assert_equal(state(with_hook), state(without))
    assert not [message for message in warnings_of(log) if "is discarded" in message]


def test_loss_scaling_that_skips_every_step_stops_the_run(config, tmp_path):
    options = {"optim_wrapper.type": "ScaledWrapper", "train_cfg.max_epochs": 9}
    with pytest.raises(DivergenceError, match=r"20 steps in a row .* iteration 23: loss_pyr_s0 is inf.*\(epoch 5"):
        train(config, tmp_path, options, before_train_epoch=overflow(range(3, 100)))


def test_number_of_steps_in_a_row_that_stop_the_run_is_a_setting(config, tmp_path):
    options = {"default_hooks.divergence.max_skips": 2, "train_cfg.max_epochs": 1}
    train(config, tmp_path / "apart", options, before_train_epoch=overflow({1, 3}))
    with pytest.raises(DivergenceError, match="2 steps in a row were not finite, the last at iteration 3: loss_pyr_s0"):
        train(config, tmp_path / "in_a_row", options, before_train_epoch=overflow({1, 2}))
    with pytest.raises(ValueError, match="max_skips must be >= 1, got 0"):
        DivergenceHook(max_skips=0)
