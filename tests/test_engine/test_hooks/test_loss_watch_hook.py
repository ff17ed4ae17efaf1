"""A loss that stays at ln K is reported."""

import math
import re
from types import SimpleNamespace

import torch
from small_runs import train, warnings_of

from sspyr_mm.engine.hooks import LossWatchHook, loss_watch_hook


def test_loss_stuck_at_ln_k_is_reported(config, tmp_path, log):
    options = {
        "train_cfg.max_epochs": 2,
        "model.head.assigner.epsilon": 50.0,  # codes are uniform
        "model.head.temperature": 10.0,  # and so are predictions
        "default_hooks.loss_watch": dict(type="LossWatchHook", patience=4, interval=2),
    }
    train(config, tmp_path, options)
    found = [m for m in warnings_of(log) if m.startswith("The loss of ")]
    # Ten iterations: reported after 4 and once more after 8.
    assert [m.split()[3] for m in found] == ["s0", "s1"] * 2
    assert re.search(
        r"^The loss of s0 has stayed at its value for equal embeddings for 4 iterations \(ratio (0\.99\d|1\.0\d\d)\): "
        r"the codes of s0 are uniform and it learns nothing\. Set model\.head\.assigner\.epsilon lower \(now 50; try "
        r"0\.01\), use AdamW with lr 0\.003 .*See docs/small_batches\.md\.$",
        found[0],
    )


def test_falling_loss_is_not_reported(config, tmp_path, log):
    options = {
        "train_cfg.max_epochs": 3,
        "default_hooks.loss_watch": dict(type="LossWatchHook", patience=4, interval=1),
    }
    train(config, tmp_path, options)
    assert not [m for m in warnings_of(log) if m.startswith("The loss of ")]


def watched(ratios, monkeypatch, *, unjudged=0, **arguments):
    """Returns the iterations, from 1, after which a warning was logged; the first ``unjudged`` get no advice."""
    hook = LossWatchHook(**{"interval": 1, **arguments})
    warned = []
    advice = iter([None] * unjudged + ["advice"] * len(ratios))
    model = SimpleNamespace(head=SimpleNamespace(stuck_advice=lambda _: next(advice)))
    monkeypatch.setattr(loss_watch_hook, "model_of", lambda _: model)
    for iteration, ratio in enumerate(ratios):
        logger = SimpleNamespace(warning=lambda _, n=iteration: warned.append(n + 1))
        runner = SimpleNamespace(iter=iteration, logger=logger)
        outputs = {"loss": torch.tensor(3.0), "ce_ratio_s0": torch.tensor(ratio)}
        hook.after_train_iter(runner, 0, outputs=outputs)
    return warned


def test_iterations_at_which_a_stuck_loss_is_reported(monkeypatch):
    assert watched([1.0] * 12, monkeypatch, patience=5) == [5, 10]
    assert watched([0.98] * 12, monkeypatch, patience=5) == []
    # A single ratio below the threshold restarts the count.
    assert watched([1.0] * 4 + [0.9] + [1.0] * 7, monkeypatch, patience=5) == [10]
    assert watched([0.5] * 6 + [0.995] * 6, monkeypatch, patience=5) == [11]
    assert watched([0.95] * 5, monkeypatch, patience=5, threshold=0.9) == [5]
    # Confident and wrong, as at the start: above ln K, and a lower epsilon does not help.
    assert watched([2.5] * 8, monkeypatch, patience=5) == []
    assert watched([1.5, 1.2, 1.05] + [1.005] * 6, monkeypatch, patience=5) == [8]
    assert watched([1.0] * 12, monkeypatch, patience=6, interval=3) == [6, 12]
    # Contrast: the count starts when the queue holds keys.
    assert watched([1.0] * 10, monkeypatch, patience=3, unjudged=4) == [7, 10]


def test_loss_that_is_not_finite_is_not_stuck(monkeypatch):
    assert watched([1.0] * 3 + [math.nan] + [1.0] * 4, monkeypatch, patience=5) == []
    assert watched([math.inf] * 9, monkeypatch, patience=5) == []
