"""Runs that are interrupted and resumed equal uninterrupted runs."""

import re
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from small_runs import BATCH, ITERS, assert_equal, state, train

from sspyr_mm.engine.hooks import data_hooks


def head_counts(runner):
    return {name: q.num_pushed for name, q in runner.model.head.queues.items()}


def test_resuming_after_an_epoch_equals_an_uninterrupted_run(config, tmp_path, uninterrupted):
    losses = []
    runner = train(
        config,
        tmp_path,
        {"resume": True, "load_from": str(uninterrupted.work_dir / "epoch_1.pth")},
        after_train_iter=lambda r: losses.append(float(r.message_hub.get_scalar("train/loss").current())),
    )
    assert losses == uninterrupted.losses[ITERS:]
    assert_equal(state(runner), uninterrupted.state)
    assert head_counts(runner) == dict(s0=3 * ITERS * BATCH, s1=3 * ITERS * BATCH * 4)
    ends = [torch.load(folder / "epoch_3.pth", weights_only=False) for folder in (tmp_path, uninterrupted.work_dir)]
    hubs = [end["message_hub"] for end in ends]
    assert hubs[0]["resumed_keys"] == hubs[1]["resumed_keys"]
    assert hubs[0]["runtime_info"].keys() == hubs[1]["runtime_info"].keys()
    for name, history in hubs[1]["log_scalars"].items():
        assert type(hubs[0]["log_scalars"][name]) is HistoryBuffer
        if any(word in name for word in ("loss", "lr")):
            assert (hubs[0]["log_scalars"][name].data[0] == history.data[0]).all(), name


@pytest.mark.parametrize(
    ("number", "num_workers", "stage", "iteration"),
    [
        (signal.SIGINT, 2, "before_train_iter", ITERS + 2),
        (signal.SIGTERM, 0, "before_train_iter", ITERS + 2),
        (signal.SIGINT, 0, "before_train_iter", 2 * ITERS - 1),
        (signal.SIGTERM, 0, "before_train_epoch", 0),
    ],
)
def test_resuming_within_an_epoch_equals_an_uninterrupted_run(
    config, tmp_path, uninterrupted, log, handlers, number, num_workers, stage, iteration
):
    """Also when the signal came in the last iteration of an epoch, or before the first."""
    options = {"train_dataloader.num_workers": num_workers, "train_dataloader.persistent_workers": num_workers > 0}

    def stop(runner):
        if runner.iter == iteration:
            signal.raise_signal(number)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, options, **{stage: stop})
    assert {n: signal.getsignal(n) for n in handlers} == handlers
    target = tmp_path / "interrupted.pth"
    assert (tmp_path / "last_checkpoint").read_text() == str(target)
    assert any(
        m == f"Stopped; {target} holds iteration {iteration + 1}. Add --resume to continue from it." for _, m in log
    )
    assert not list(tmp_path.glob("*.partial"))

    log.clear()
    losses = []
    runner = train(
        config,
        tmp_path,
        {**options, "resume": True},
        after_train_iter=lambda r: losses.append(float(r.message_hub.get_scalar("train/loss").current())),
    )
    epochs, done = divmod(iteration, ITERS)
    line = f"Epoch {epochs + 1} continues after iteration {done + 1} of {ITERS};"
    assert any(m.startswith(line) for _, m in log)
    assert losses == uninterrupted.losses[iteration + 1 :]
    assert_equal(state(runner), uninterrupted.state)


@pytest.mark.parametrize("seed", [0, None])
def test_resuming_a_network_with_drop_path_equals_an_uninterrupted_run(config, tmp_path, seed):
    """Drop path draws from torch's generator; a seed drawn by mmengine is saved in the checkpoint."""
    options = {"model.backbone.drop_path_rate": 0.5, "train_cfg.max_epochs": 2, "randomness.seed": seed}

    def stop(runner):
        if runner.iter == ITERS + 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path / "stopped", options, before_train_iter=stop)
    path = tmp_path / "stopped/interrupted.pth"
    drawn = torch.load(path, map_location="cpu", weights_only=False)["meta"]["seed"]
    resumed = train(config, tmp_path / "stopped", {**options, "resume": True})
    whole = train(config, tmp_path / "whole", {**options, "randomness.seed": drawn})
    assert resumed.iter == whole.iter == 2 * ITERS
    assert_equal(state(resumed), state(whole))


def test_ranks_share_the_seed_of_views_but_not_of_the_network(monkeypatch):
    drawn = []
    for rank in range(3):
        monkeypatch.setattr(data_hooks, "get_rank", lambda rank=rank: rank)
        for apart in (False, True):
            cfg = dict(randomness=dict(seed=7, diff_rank_seed=apart))
            runner = SimpleNamespace(cfg=cfg, seed=7 + rank * apart, iter=4)
            assert data_hooks._run_seed(runner) == 7
        data_hooks.ViewSeedHook().before_train_iter(runner, 0)
        drawn.append(torch.rand(()).item())
    assert len(set(drawn)) == 3


def test_resuming_within_an_epoch_requires_a_resumable_sampler(config, tmp_path):
    options = {"train_dataloader.sampler": dict(type="DefaultSampler", shuffle=True)}

    def stop(runner):
        if runner.iter == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit, match=r"^130$"):
        train(config, tmp_path, options, before_train_iter=stop)
    with pytest.raises(TypeError, match=r"Resuming within an epoch needs ResumableSampler, got DefaultSampler: set "):
        train(config, tmp_path, {**options, "resume": True})


def test_iteration_based_loop_is_rejected(config, tmp_path):
    options = {"train_cfg": dict(_delete_=True, by_epoch=False, max_iters=20)}
    message = "all epochs of an IterBasedTrainLoop would show the same views: set train_cfg=dict(by_"
    with pytest.raises(ValueError, match=re.escape(message)):
        train(config, tmp_path, options)


def test_resuming_without_the_seed_hook_differs(config, tmp_path, uninterrupted):
    """The equality tests above can fail."""
    options = {"resume": True, "load_from": str(uninterrupted.work_dir / "epoch_1.pth")}
    weights = state(train(config, tmp_path, options, without="view_seed"))
    assert any(not torch.equal(weights[k], v) for k, v in uninterrupted.state.items())


@pytest.mark.parametrize("options", [{"model.pyramid.s0.num_prototypes": 7}, {"model.pyramid.s1": None}])
def test_checkpoint_with_a_different_pyramid_is_rejected(config, tmp_path, uninterrupted, options):
    key = next(iter(options))
    line = {
        "model.pyramid.s0.num_prototypes": (
            "  head.prototypes.s0.weight: (6, 8) in the checkpoint, (7, 8) in the model"
        ),
        "model.pyramid.s1": "  head.prototypes.s1.weight: in the checkpoint, not in the model",
    }[key]
    checkpoint = str(uninterrupted.work_dir / "epoch_1.pth")
    with pytest.raises(
        ValueError,
        match=r"trained with other settings of the model .*:\n(?s:.*)"
        + re.escape(line)
        + r"(?s:.*)Train with the config of the checkpoint, or load the backbone alone",
    ):
        train(config, tmp_path, {**options, "resume": True, "load_from": checkpoint})


@pytest.mark.parametrize("options", [{"train_cfg.max_epochs": 5}, {"train_dataloader.batch_size": BATCH // 2}])
def test_resuming_with_a_different_schedule_is_rejected(config, tmp_path, uninterrupted, options):
    checkpoint = str(uninterrupted.work_dir / "epoch_1.pth")
    with pytest.raises(ValueError, match=r"the schedules differ. Resume with the old settings"):
        train(config, tmp_path, {**options, "resume": True, "load_from": checkpoint})
