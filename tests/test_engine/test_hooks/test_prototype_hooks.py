"""Hooks on prototypes and queues, in real runs."""

import pytest
import torch
from small_runs import BATCH, ITERS, train

from sspyr_mm.engine.hooks import FreezePrototypesHook, QueueHook


@pytest.mark.parametrize(("variant", "num_frozen"), [("paper", 5), ("official", 2)])
def test_frozen_targets_are_bit_equal_until_the_freeze_ends(config, tmp_path, variant, num_frozen):
    seen = []

    def look(runner):
        head = runner.model.head
        assert all(p.requires_grad for p in runner.model.parameters())
        targets = torch.cat([p.detach().flatten() for p in head.target_parameters()])
        others = [*runner.model.backbone.parameters(), *runner.model.neck.parameters()]
        seen.append((targets, [p.detach().clone() for p in others]))

    options = {
        "model.head.variant": variant,
        "train_cfg.max_epochs": 2,
        "default_hooks.freeze": dict(type="FreezePrototypesHook", num_iters=num_frozen),
    }
    steps = []

    def start(runner):
        if runner.iter == 0:
            # Runs after the hook of the freeze; torch allows no changes of hooks while they run.
            runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: steps.append(1))
        look(runner)

    train(config, tmp_path, options, before_train_iter=start, after_train_iter=look)
    assert len(steps) == 2 * ITERS
    assert len(seen) == 2 * 2 * ITERS
    for iteration in range(2 * ITERS):
        before, after = seen[2 * iteration], seen[2 * iteration + 1]
        assert torch.equal(before[0], after[0]) == (iteration < num_frozen), iteration
        moved = [not torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True)]
        assert all(moved) or iteration == 0  # the warm-up starts near zero


def test_freeze_counts_optimizer_steps(config, tmp_path):
    seen = []

    def look(runner):
        seen.append(torch.cat([p.flatten() for p in runner.model.head.target_parameters()]))

    options = {
        "train_cfg.max_epochs": 2,
        "optim_wrapper.accumulative_counts": 2,
        "default_hooks.freeze": dict(type="FreezePrototypesHook", num_iters=2),
    }
    train(config, tmp_path, options, before_train_iter=look)
    # Steps end iterations 1, 3, 5 and 7; the first two of them are frozen.
    torch.testing.assert_close(seen[5], seen[0], rtol=0, atol=2e-7)
    assert not torch.allclose(seen[6], seen[0], atol=1e-5)


@pytest.mark.parametrize("num_frozen", [0, 20])
def test_frozen_gradients_do_not_count_in_the_clipped_norm(config, tmp_path, num_frozen):
    norms = []

    def attach(runner):
        if runner.iter:
            return

        def compare(optimizer, *_):
            grads = [p.grad.flatten() for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            found = runner.message_hub.get_scalar("train/grad_norm").current()
            norms.append((found, torch.cat(grads).norm().item()))

        runner.optim_wrapper.optimizer.register_step_pre_hook(compare)

    options = {
        "train_cfg.max_epochs": 1,
        "optim_wrapper.clip_grad": dict(max_norm=1e9),  # measures the norm without clipping
        "default_hooks.freeze": dict(type="FreezePrototypesHook", num_iters=num_frozen),
    }
    train(config, tmp_path, options, before_train_iter=attach)
    assert len(norms) == ITERS
    for found, expected in norms:
        assert found == pytest.approx(expected, rel=1e-5)


def test_nothing_is_frozen_by_default_and_negative_counts_are_rejected(config, tmp_path):
    assert FreezePrototypesHook().num_iters == 0
    with pytest.raises(ValueError, match=r"num_iters must be >= 0, got -1; 0 freezes nothing"):
        FreezePrototypesHook(-1)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_prototypes_have_unit_length_after_every_step(config, tmp_path, variant):
    norms = {"C": [], "g": []}

    def look(runner):
        head = runner.model.head
        norms["C"] += [m.weight.norm(dim=1) - 1 for m in head.prototypes.values()]
        norms["g"] += [m.linear.weight.norm(dim=1) - 1 for m in head.correlation.values()]

    options = {"model.head.variant": variant, "train_cfg.max_epochs": 1}
    train(config, tmp_path / "with", options, after_train_iter=look)
    assert torch.cat(norms["C"]).abs().max() < 1e-6
    g = torch.cat(norms["g"]).abs().max()
    assert g < 1e-6 if variant == "official" else g > 0.01  # g of the paper is a plain linear layer
    norms["C"].clear()
    train(config, tmp_path / "off", options, without="normalize_prototypes", after_train_iter=look)
    assert torch.cat(norms["C"]).abs().max() > 1e-4  # the hook does something


# ---- queues


def test_queues_start_at_their_epoch(config, tmp_path):
    pushed = []

    def look(runner):
        queues = runner.model.head.queues
        pushed.append({name: q.num_pushed for name, q in queues.items()})
        if runner.epoch < 1:
            assert not any(q.embeddings.any() for q in queues.values())

    options = {"train_cfg.max_epochs": 2, "default_hooks.queue": dict(type="QueueHook", start_epoch=1)}
    train(config, tmp_path, options, after_train_iter=look)
    assert pushed[:ITERS] == [dict(s0=0, s1=0)] * ITERS
    assert pushed[ITERS:] == [dict(s0=BATCH * n, s1=4 * BATCH * n) for n in range(1, ITERS + 1)]


def test_queues_start_at_once_without_the_hook(config, tmp_path):
    runner = train(config, tmp_path, {"train_cfg.max_epochs": 1})
    assert runner.model.head.queues["s0"].num_pushed == BATCH * ITERS
    assert QueueHook().start_epoch == 0
