"""Steps that are not finite change nothing: the run equals one in which that step had no effect."""

import copy
import functools
import math

import commands
import pytest
import torch
from mmengine.runner import find_latest_checkpoint
from small_runs import ITERS, assert_equal, state, train, warnings_of
from torch.utils._pytree import tree_flatten_with_path

from sspyr_mm.engine.hooks import DivergenceError, divergence_hook
from sspyr_mm.engine.step_guard import StepGuard

EMA = {"custom_hooks": [dict(type="EMAHook")]}


@pytest.fixture(scope="module")
def config(config_of_a_method):
    return config_of_a_method


@pytest.fixture(params=[False, True], ids=["host", "device"])
def deferred(request, monkeypatch):
    """Whether the step is undone without reading the flag, as on a GPU."""
    monkeypatch.setattr(divergence_hook, "StepGuard", functools.partial(StepGuard, deferred=request.param))


def images_with_nan(iterations):
    """Sets the first image of every view to NaN in some iterations."""

    def attach(runner):
        def spoil(module, args, output):
            if runner.iter in iterations:
                for patches in output["inputs"].values():
                    if patches.ndim > 4:
                        patches[:, 0] = math.nan
            return output

        if runner.iter == 0:
            runner.model.data_preprocessor.register_forward_hook(spoil)

    return attach


def infinite_gradient(iterations):
    """Makes a gradient infinite in some iterations; the loss is finite."""

    def attach(runner):
        if runner.iter == 0:
            weight = runner.model.backbone.conv1.weight
            weight.register_hook(lambda grad: grad * math.inf if runner.iter in iterations else None)

    return attach


def undone(first, last):
    """Functions that undo iterations from outside, by loading the state before them."""
    before = {}

    def keep(runner):
        if runner.iter == first:
            before["model"] = copy.deepcopy(runner.model.state_dict())
            before["optimizer"] = copy.deepcopy(runner.optim_wrapper.optimizer.state_dict()["state"])
            before["ema"] = [copy.deepcopy(hook.ema_model.state_dict()) for hook in averages(runner)]

    def restore(runner):
        if runner.iter == last:
            runner.model.load_state_dict(before["model"])
            optimizer = runner.optim_wrapper.optimizer
            optimizer.load_state_dict({**optimizer.state_dict(), "state": before["optimizer"]})
            for hook, saved in zip(averages(runner), before["ema"], strict=True):
                hook.ema_model.load_state_dict(saved)

    return {"before_train_iter": keep, "after_train_iter": restore}


def averages(runner):
    return [hook for hook in runner.hooks if type(hook).__name__ == "EMAHook"]


def assert_same_checkpoints(folder, other, but=("message_hub", "meta")):
    """Compares every value of the last checkpoints of two runs, bit by bit."""
    found = []
    for path in (folder, other):
        saved = torch.load(find_latest_checkpoint(str(path)), weights_only=False)
        leaves = tree_flatten_with_path({key: value for key, value in saved.items() if key not in but})[0]
        found.append({str(place): value for place, value in leaves})
    assert list(found[0]) == list(found[1]) and len(found[0]) > 100
    different = [
        place
        for place, value in found[0].items()
        if not (torch.equal(value, found[1][place]) if torch.is_tensor(value) else value == found[1][place])
    ]
    assert not different


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        (images_with_nan, ITERS + 1),
        pytest.param(images_with_nan, 0, marks=SLOW),
        pytest.param(infinite_gradient, ITERS + 1, marks=SLOW),
        pytest.param(infinite_gradient, 0, marks=SLOW),
    ],
)
def test_discarded_step_has_no_effect(config, tmp_path, log, deferred, fault, step):
    options = {"train_cfg.max_epochs": 2, "default_hooks.checkpoint.interval": 2, **EMA}
    train(config, tmp_path / "spoilt", options, before_train_iter=fault({step}))
    (message, *_) = [m for m in warnings_of(log) if "is discarded" in m]
    reason = "a gradient or buffer is not finite" if fault is infinite_gradient else "is nan"
    assert f"of iteration {step + 1} " in message and reason in message and "1 discarded so far, 1 in a row" in message
    train(config, tmp_path / "undone", options, **undone(step, step))
    assert_same_checkpoints(tmp_path / "spoilt", tmp_path / "undone")


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [4, 5, 7])
def test_one_iteration_discards_the_whole_accumulated_step(config, tmp_path, log, deferred, spoilt):
    """The first, second or last of the four of a step, or next to a checkpoint within it."""
    options = {"optim_wrapper.accumulative_counts": 4, "train_cfg.max_epochs": 2}
    train(config, tmp_path / "spoilt", options, before_train_iter=images_with_nan({spoilt}))
    assert len([m for m in warnings_of(log) if "is discarded" in m]) == 1
    train(config, tmp_path / "undone", options, **undone(4, 7))
    assert_same_checkpoints(tmp_path / "spoilt", tmp_path / "undone")


@pytest.mark.slow
def test_run_that_discarded_a_step_resumes_to_the_same_state(config, tmp_path):
    options = {"train_cfg.max_epochs": 3}
    whole = train(config, tmp_path / "run", options, before_train_iter=images_with_nan({1}))
    for path in (tmp_path / "run").glob("epoch_[23].pth"):
        path.unlink()
    first = str(tmp_path / "run/epoch_1.pth")
    resumed = train(config, tmp_path / "run", {**options, "resume": True, "load_from": first})
    assert_equal(state(resumed), state(whole))
    assert resumed.message_hub.runtime_info["skipped_steps"] == 1


def test_three_in_a_row_stop_with_a_diagnosis_that_replays(config, tmp_path, deferred):
    def enlarge(runner):
        """Weights that are finite, but whose products are not."""
        if runner.iter == ITERS + 1:
            torch.nn.init.constant_(runner.model.backbone.layer1[0].conv1.weight, 3e38)

    with pytest.raises(DivergenceError) as caught:
        train(config, tmp_path, before_train_iter=enlarge)
    message = str(caught.value)
    where = "output of backbone.layer1.0.conv1 (Conv2d): "
    assert f"3 steps in a row were not finite, the last at iteration {ITERS + 4}: loss_" in message
    assert f"the first value that is not finite is the {where}" in message
    assert "(epoch 2, learning rate 0.0" in message and "precision torch.float32, inputs -" in message
    assert f"The last good checkpoint is {tmp_path}/epoch_1.pth" in message
    assert not (tmp_path / "epoch_2.pth").exists()
    for which, iteration in (("first", ITERS + 2), ("last", ITERS + 4)):
        done = commands.run("tools/replay.py", tmp_path / f"skipped_step_{which}.pt")
        assert f"Iteration {iteration}: learning rate 0.0" in done.stdout
        assert f"First value that is not finite: {where}" in done.stdout
    resumed = train(config, tmp_path, {"resume": True})
    assert resumed.iter == 3 * ITERS


@pytest.mark.slow
def test_replay_computes_the_losses_of_the_run(config, tmp_path, deferred):
    """Of a step that is discarded for a reason that is not in the file."""
    losses = {}

    def look(runner):
        losses[runner.iter] = float(runner.message_hub.get_scalar("train/loss").current())

    options = {"model.backbone.drop_path_rate": 0.5}
    train(config, tmp_path, options, before_train_iter=infinite_gradient({ITERS + 1}), after_train_iter=look)
    done = commands.run("tools/replay.py", tmp_path / "skipped_step_first.pt", check=False)
    assert done.returncode == 1 and "All values are finite" in done.stdout
    assert f"loss {losses[ITERS + 1]:.6g}," in done.stdout
    assert not (tmp_path / "skipped_step_last.pt").exists()


def test_replay_refuses_other_files(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "epoch_1.pth")
    done = commands.run("tools/replay.py", tmp_path / "epoch_1.pth", check=False)
    assert done.returncode == 2 and "holds no step: pass WORK_DIR/skipped_step_first.pt" in done.stderr
