"""Runs of momentum methods through the Runner: hooks, resuming, and commands that read their checkpoints."""

import itertools
import math
import re
import signal

import commands
import pytest
import torch
from project import ROOT
from small_runs import BATCH, ITERS, MOMENTUM_CONFIG, assert_equal, state, train, warnings_of

from sspyr_mm.engine.hooks import MomentumHook


@pytest.fixture(scope="session")
def config(images, tmp_path_factory):
    """Replaces the SS-PRL config of the folder's fixtures."""
    path = tmp_path_factory.mktemp("config") / "config.py"
    path.write_text(MOMENTUM_CONFIG.format(root=ROOT, data=images, batch=BATCH))
    return path


@pytest.mark.parametrize("iteration", [ITERS + 1, 2 * ITERS - 1])
def test_resuming_within_an_epoch_equals_an_uninterrupted_run(config, tmp_path, uninterrupted, iteration):
    def stop(runner):
        if runner.iter == iteration:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, before_train_iter=stop)
    losses = []
    runner = train(
        config,
        tmp_path,
        {"resume": True},
        after_train_iter=lambda r: losses.append(float(r.message_hub.get_scalar("train/loss").current())),
    )
    assert losses == uninterrupted.losses[iteration + 1 :]
    assert_equal(state(runner), uninterrupted.state)
    assert runner.model.head.queues["main"].num_pushed == 3 * ITERS * BATCH


def test_number_of_workers_changes_no_weight(config, tmp_path, uninterrupted):
    runner = train(config, tmp_path, {"train_dataloader.num_workers": 2})
    assert_equal(state(runner), uninterrupted.state)


@pytest.mark.parametrize("counts", [1, 3])
def test_momentum_encoder_moves_once_per_optimizer_step(config, tmp_path, counts):
    """The history of a weight gives its momentum copy, under accumulated gradients, too."""
    options = {
        "optim_wrapper.accumulative_counts": counts,
        "train_cfg.max_epochs": 2,
        "default_hooks.momentum.end": 1.0,
    }
    name, history = "neck.mlp.2.weight", []

    def keep(runner):
        history.append(runner.model.get_parameter(name).detach().clone())

    runner = train(config, tmp_path, options, before_train_iter=keep)
    keep(runner)
    total = math.ceil(2 * ITERS / counts)
    expected, steps = history[0].double(), 0
    for number, (before, after) in enumerate(itertools.pairwise(history), start=1):
        due = number % counts == 0 or number == 2 * ITERS
        assert due == (not torch.equal(before, after))
        if due:
            steps += 1
            m = 1 - (1 - 0.99) * (math.cos(math.pi * steps / total) + 1) / 2
            expected = m * expected + (1 - m) * after.double()
    assert steps == total and m == 1
    got = runner.model.get_parameter(f"momentum.{name}").double()
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    assert runner.model.head.queues["main"].num_pushed == 2 * ITERS * BATCH  # in every iteration


def test_a_momentum_outside_its_range_is_rejected():
    for arguments in (dict(momentum=1.5), dict(end=-0.1)):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\], got (1.5|-0.1)"):
            MomentumHook(**arguments)
    assert MomentumHook(0.9).momentum_after(3, 10) == 0.9


def test_a_run_without_the_momentum_hook_ends_with_its_name(config, tmp_path):
    with pytest.raises(RuntimeError, match="MomentumHook"):
        train(config, tmp_path, without="momentum")


def test_equal_embeddings_are_reported(config, tmp_path, log):
    options = {
        "default_hooks.health": dict(type="HealthHook", patience=3, interval=1),
        "model.head.temperature": 1000.0,  # all logits are alike
        "train_cfg.max_epochs": 2,
    }
    train(config, tmp_path, options)
    (first, *_) = [m for m in warnings_of(log) if m.startswith("Health of main: stuck")]
    assert re.search(r"for 3 iterations \(loss ratio (0\.99\d|1\.00\d), .*\): all embeddings are alike", first)


def test_commands_read_the_checkpoint(uninterrupted, tmp_path, images):
    checkpoint = uninterrupted.work_dir / "epoch_3.pth"
    shown = commands.run("-m", "sspyr_mm", "inspect", checkpoint)
    assert "ResNet" in shown.stdout
    commands.run("-m", "sspyr_mm", "export", checkpoint, tmp_path / "backbone.pth")
    exported = torch.load(tmp_path / "backbone.pth", weights_only=True)
    assert exported["meta"]["backbone"]["norm_cfg"]["type"] == "BN"
    tensors = {n: x for n, x in uninterrupted.state.items() if n.startswith("backbone.")}
    for name, value in exported["state_dict"].items():
        assert torch.equal(value, tensors[f"backbone.{name.removeprefix('backbone.')}"]), name
    assert len(exported["state_dict"]) == len(tensors)
    shown = commands.run("-m", "sspyr_mm", "health", checkpoint, "--images", images, check=False)
    assert [line.split()[0] for line in shown.stdout.splitlines()[:2]] == ["main", "features"]


OTHERS = {
    "swav": "neck=dict(in_channels=64)",
    "byol": "neck=dict(in_channels=64)",
    "densecl": "neck=dict(in_channels=64), head=dict(queue_length=14)",
    "detco": "neck=dict(in_channels=(8, 16, 32, 64)), head=dict(queue_length=14)",
    "insloc": "neck=dict(in_channels=(8, 16, 32, 64)), head=dict(queue_length=14)",
    "maskco": "neck=dict(in_channels=64), head=dict(queue_length=14), channels=64",
}


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_every_method_resumes_within_an_epoch_and_exports(method, images, tmp_path):
    """Bit-equal to an uninterrupted run; the exported backbone is the trained one."""
    path = tmp_path / "config.py"
    path.write_text(
        f"""
_base_ = "{ROOT}/configs/{method}/r18_small.py"
model = dict(backbone=dict(stem_channels=8, base_channels=8), {OTHERS[method]})
train_dataloader = dict(
    batch_size={BATCH}, num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(data_root="{images}")
)
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""
    )

    def stop(runner):
        if runner.iter == ITERS + 1:
            signal.raise_signal(signal.SIGTERM)

    whole = train(path, tmp_path / "whole")
    with pytest.raises(SystemExit, match=r"^130$"):
        train(path, tmp_path / "stopped", before_train_iter=stop)
    resumed = train(path, tmp_path / "stopped", {"resume": True})
    assert resumed.iter == whole.iter == 2 * ITERS
    assert_equal(state(resumed), state(whole))
    optimizers = [runner.optim_wrapper.optimizer.state_dict()["state"] for runner in (whole, resumed)]
    for number, entries in optimizers[0].items():
        for name, value in entries.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(optimizers[1][number][name])), name
    commands.run("-m", "sspyr_mm", "export", tmp_path / "whole/epoch_2.pth", tmp_path / "backbone.pth")
    exported = torch.load(tmp_path / "backbone.pth", weights_only=True)["state_dict"]
    trained = {n: x for n, x in state(whole).items() if n.startswith("backbone.")}
    assert len(exported) == len(trained)
    assert all(torch.equal(x, trained[f"backbone.{n.removeprefix('backbone.')}"]) for n, x in exported.items())
