"""Health of training steps: its numbers, its verdicts, and the back ends that receive them."""

import json
import math
import re
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from small_runs import MOMENTUM_CONFIG, make_runner, train, warnings_of
from torch.nn import functional as F

from sspyr_mm.engine.hooks import HealthHook, health_hook

EVERY_STEP = {"default_hooks.health": dict(type="HealthHook", interval=1, patience=4, table_interval=5)}


def scalars(work_dir):
    """Measures in the log of a run, by iteration."""
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    lines = map(json.loads, file.read_text().splitlines())
    return {line.pop("step"): line for line in lines if any(name.startswith("health/") for name in line)}


@HOOKS.register_module()
class KeepStep(Hook):
    """Keeps the batch of an iteration, the state before it, and the gradients that the optimizer gets."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train(self, runner):
        def keep(optimizer, args, kwargs):
            if runner.iter + 1 == self.iteration:
                params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
                self.gradients = [p.grad.double().numpy().copy() for p in params]

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            self.batch = data_batch
            self.state = {name: value.clone() for name, value in runner.model.state_dict().items()}


def test_measures_of_a_run_equal_those_of_the_same_step_computed_again(config, tmp_path):
    """From pixels to the log, in float64 numpy behind the network."""
    keep = KeepStep(iteration=7)
    options = {"custom_hooks": [], **EVERY_STEP, "model.pyramid.s1.queue_length": 0}
    runner = make_runner(config, tmp_path, options)
    runner.register_hook(keep)
    runner.train()
    found = scalars(tmp_path)
    assert sorted(found) == list(range(1, 16))  # 15 iterations
    model = runner.model
    model.load_state_dict(keep.state)
    model.train()
    with torch.no_grad():
        embeddings = model.embed(model.data_preprocessor(keep.batch, training=True)["inputs"])
        maps = model.backbone(model.data_preprocessor(keep.batch, training=True)["inputs"]["s0"].flatten(0, 2))[-1]
        codes = {name: q.numpy() for name, q in model.head.assign_codes(embeddings).items()}
    step = found[7]
    for name, num_cells in (("s0", 1), ("s1", 4)):
        z = embeddings[name].flatten(1, 2).double().numpy()
        values = np.linalg.svd(z[0], compute_uv=False)
        values /= values.sum()
        expected = {
            "deviation": np.mean([np.sqrt(view.var(0).sum()) for view in z]),
            "rank": np.exp(-(values * np.log(values)).sum()),
            "alignment": (z[0] * z[1]).sum(1).mean(),
        }
        q = codes[name].reshape(-1, codes[name].shape[-1]).astype(np.float64)
        expected["entropy"] = -(q * np.log(np.maximum(q, 1e-300))).sum(1).mean() / math.log(q.shape[1])
        assert runner.model.num_cells(name) == num_cells
        for measure, value in expected.items():
            assert step[f"health/{name}/{measure}"] == pytest.approx(value, abs=2e-4), (name, measure)
        weight = F.normalize(keep.state[f"head.prototypes.{name}.weight"].double(), dim=1).numpy()
        scores = z @ weight.T / model.head.temperature
        log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        crossed = -(codes[name].astype(np.float64) * log_p[[1, 0]]).sum(2).mean() / math.log(weight.shape[0])
        assert step[f"health/{name}/ratio"] == pytest.approx(crossed, abs=2e-4)
    pixels = model.data_preprocessor(keep.batch, training=True)["inputs"]["s0"].flatten(0, 2).double().numpy()
    assert step["health/features/contrast"] == pytest.approx(pixels.std((2, 3)).mean(), rel=1e-4)
    images = F.normalize(maps.mean((2, 3)), dim=1).double().numpy()
    assert step["health/features/image_deviation"] == pytest.approx(np.sqrt(images.var(0).sum()), abs=2e-4)
    norm = math.sqrt(sum((gradient**2).sum() for gradient in keep.gradients))
    assert step["health/step/gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_a_run_with_health_has_the_same_weights(config, tmp_path):
    with_health = train(config, tmp_path / "with", EVERY_STEP).model.state_dict()
    without = train(config, tmp_path / "without", without="health").model.state_dict()
    assert all(torch.equal(value, without[name]) for name, value in with_health.items())


@pytest.mark.parametrize("recompute", ["scale", None])
def test_methods_without_prototypes_are_measured(images, tmp_path, recompute):
    from project import ROOT

    path = tmp_path / "config.py"
    path.write_text(MOMENTUM_CONFIG.format(root=ROOT, data=images, batch=4))
    train(path, tmp_path / "run", {**EVERY_STEP, "model.recompute": recompute})
    last = scalars(tmp_path / "run")[15]
    expected = {"deviation", "rank", "alignment", "queue", "ratio"}
    assert {name.split("/")[2] for name in last if name.startswith("health/main/")} == expected
    assert last["health/main/queue"] == 1 and 0 < last["health/main/deviation"] <= 1


def test_table_has_a_verdict_per_line(config, tmp_path, log):
    train(config, tmp_path, EVERY_STEP)
    tables = [message for _, message in log if message.startswith("Health at iteration")]
    assert len(tables) == 3
    lines = tables[0].splitlines()
    assert lines[0] == "Health at iteration 5:"
    verdicts = [
        re.match(r"  (\w+) +(fine|early|watch, [a-z ]+|broken, [a-z ]+)  ", line).groups() for line in lines[1:]
    ]
    assert [name for name, _ in verdicts] == ["s0", "s1", "features", "step"]
    assert "gradient norm" in lines[-1] and "learning rate" in lines[-1] and "cells" not in lines[1]


def test_a_short_run_ends_with_a_table(config, tmp_path, log):
    train(config, tmp_path, {"default_hooks.health": dict(type="HealthHook", interval=2), "train_cfg.max_epochs": 1})
    tables = [message for _, message in log if message.startswith("Health at iteration")]
    assert [table.splitlines()[0] for table in tables] == ["Health at iteration 4:"]
    saved = json.loads((tmp_path / "health.json").read_text())
    assert saved["iteration"] == 4 and saved["lines"]["s0"]["verdict"] == "early"


def test_stuck_loss_is_reported_with_its_remedy(config, tmp_path, log):
    options = {
        "train_cfg.max_epochs": 2,
        "model.head.assigner.epsilon": 50.0,  # codes are uniform
        "model.head.temperature": 10.0,  # and so are predictions
        "default_hooks.health": dict(type="HealthHook", patience=4, interval=2),
    }
    train(config, tmp_path, options)
    found = [m for m in warnings_of(log) if m.startswith("Health of ")]
    # Ten iterations: reported after 4 and once more after 8.
    assert [m.split()[2] for m in found] == ["s0:", "s1:"] * 2
    assert re.search(
        r"^Health of s0: stuck for 4 iterations \(loss ratio (0\.99\d|1\.0\d\d), .*\): the predictions or codes "
        r"of s0 are uniform: .*set model\.head\.assigner\.epsilon lower \(now 50; try 0\.01\), use AdamW "
        r"with lr 0\.003 .*See docs/small_batches\.md\.$",
        found[0],
    )


def watched(ratios, monkeypatch, *, unjudged=0, patience=5, interval=1):
    """Returns the iterations, from 1, after which a warning was logged; the first ``unjudged`` get no advice."""
    hook, warned = HealthHook(interval=interval, patience=patience, table_interval=10**6), []
    advice = iter([None] * unjudged + ["advice"] * len(ratios))
    model = SimpleNamespace(head=SimpleNamespace(stuck_advice=lambda _: next(advice)))
    monkeypatch.setattr(health_hook, "model_of", lambda _: model)
    for iteration, ratio in enumerate(ratios):
        logger = SimpleNamespace(warning=lambda text, n=iteration: warned.append((n + 1, text.split(" for ")[0][14:])))
        visualizer = SimpleNamespace(add_scalars=lambda *args, **kwargs: None)
        hub = SimpleNamespace(log_scalars={})
        runner = SimpleNamespace(iter=iteration, logger=logger, visualizer=visualizer, message_hub=hub)
        hook.before_train_iter(runner, 0)
        hook.after_train_iter(runner, 0, outputs={"loss": torch.tensor(3.0), "ce_ratio_s0": torch.tensor(ratio)})
    return warned


def test_iterations_at_which_a_sign_is_reported(monkeypatch):
    assert watched([1.0] * 12, monkeypatch) == [(5, "stuck"), (10, "stuck")]
    assert watched([0.98] * 12, monkeypatch) == []
    # A single ratio without the sign restarts the count.
    assert watched([1.0] * 4 + [0.9] + [1.0] * 7, monkeypatch) == [(10, "stuck")]
    assert watched([0.5] * 6 + [0.995] * 6, monkeypatch) == [(11, "stuck")]
    # Another sign has a count of its own.
    assert watched([2.5] * 5 + [1.0] * 5, monkeypatch) == [(5, "worse than uniform"), (10, "stuck")]
    assert watched([1.0] * 12, monkeypatch, patience=6, interval=3) == [(6, "stuck"), (12, "stuck")]
    # Contrast: the count starts when the queue holds keys.
    assert watched([1.0] * 10, monkeypatch, patience=3, unjudged=4) == [(7, "stuck"), (10, "stuck")]
    # DivergenceHook handles those.
    assert watched([1.0] * 3 + [math.nan] + [1.0] * 4, monkeypatch) == []


def wandb_records(file):
    """Records of an offline run of W&B: blocks of 32 KiB, of parts with checksum, length and place in the record."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, record, start = file.read_bytes(), b"", 7  # after the file's header
    while start + 7 <= len(data):
        if (left := 32768 - start % 32768) < 7:
            start += left
            continue
        length, place = struct.unpack("<HB", data[start + 4 : start + 7])
        record += data[start + 7 : start + 7 + length]
        start += 7 + length
        if place in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


@pytest.mark.slow  # W&B starts a service
def test_every_back_end_of_mmengine_receives_the_measures(config, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/mlflow"
    backends = [
        dict(type="LocalVisBackend"),
        dict(type="TensorboardVisBackend"),
        dict(type="WandbVisBackend", init_kwargs=dict(mode="offline", dir=str(tmp_path))),
        dict(type="MLflowVisBackend", tracking_uri=uri, exp_name="test"),
    ]
    runner = train(config, tmp_path / "run", {**EVERY_STEP, "visualizer.vis_backends": backends})
    runner.visualizer.close()
    expected = {n: line["health/s1/used"] for n, line in scalars(tmp_path / "run").items()}
    assert sorted(expected) == list(range(1, 16))

    (events,) = (tmp_path / "run").rglob("events.out.tfevents*")
    board = accumulator.EventAccumulator(str(events))
    board.Reload()
    assert {event.step: event.value for event in board.Scalars("health/s1/used")} == expected

    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    history = [metric for run in runs for metric in client.get_metric_history(run.info.run_id, "health/s1/used")]
    assert {metric.step: metric.value for metric in history} == expected

    (file,) = {path.resolve() for path in tmp_path.rglob("*.wandb")}  # `latest-run` is a link
    items = [{i.key or "/".join(i.nested_key): i.value_json for i in r.history.item} for r in wandb_records(file)]
    logged = [float(found["health/s1/used"]) for found in items if "health/s1/used" in found]
    assert logged == list(expected.values())


def test_arguments_are_checked():
    for name in ("interval", "patience", "table_interval"):
        with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
            HealthHook(**{name: 0})
