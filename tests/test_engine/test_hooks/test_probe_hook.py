"""Probes during a run: numbers equal those of its checkpoint, and training is unchanged."""

import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import assert_equal, make_runner, state, train, warnings_of

from sspyr_mm.checkpoints import build_backbone, read_backbone
from sspyr_mm.datasets.labelled import read_labelled
from sspyr_mm.features import FrozenEncoder, extract_features
from sspyr_mm.probes import ProbeHook, knn_scores, linear_probe, measure_scores


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Images of one or two of three colours, in CSV files."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 25)):
        lines = ["file,red,green,blue"]
        for number in range(count):
            shown = rng.integers(0, 2, 3)
            pixels = rng.integers(0, 90, (48, 56, 3)).astype(np.uint8)
            for channel in np.flatnonzero(shown):
                y, x = rng.integers(0, 30, 2)
                pixels[y : y + 16, x : x + 16, channel] += 150
            Image.fromarray(pixels).save(folder / f"{part}_{number}.png")
            lines.append(",".join(map(str, [f"{part}_{number}.png", *shown])))
        (folder / f"{part}.csv").write_text("\n".join(lines))
    return folder


def options(labelled, **changes):
    sources = {part: str(labelled / f"{part}.csv") for part in ("train", "test")}
    return {"default_hooks.probe": {"type": "ProbeHook", **sources, "max_share": None, **changes}}


def measures(work_dir):
    """Probes in the log of a run, by iteration."""
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    lines = map(json.loads, file.read_text().splitlines())
    found = {line.pop("step"): line for line in lines if "probe/knn" in line}
    return {step: {name.removeprefix("probe/"): x for name, x in line.items()} for step, line in found.items()}


def test_probes_equal_those_of_the_checkpoint(config, labelled, tmp_path, log):
    train(config, tmp_path, options(labelled, size=40, grid=2, k=7))
    found = measures(tmp_path)
    assert sorted(found) == [0, 5, 10, 15]  # before training, and after each of three epochs
    checkpoint = read_backbone(str(tmp_path / "epoch_2.pth"))
    encoder = FrozenEncoder(build_backbone(checkpoint), checkpoint.mean, checkpoint.std, identity="x", grid=2)
    parts = [read_labelled(labelled / f"{part}.csv") for part in ("train", "test")]
    (keys, queries) = (extract_features(encoder, part.paths, size=40).unflatten(1, (5, -1)) for part in parts)
    targets, wanted = (torch.from_numpy(part.targets) for part in parts)
    many = targets[:, None].expand(-1, 4, -1).flatten(0, 1)
    linear = linear_probe((keys[:, 0], targets), (queries[:, 0], wanted), multi_label=True, l2_grid=(0.01,))
    cells = linear_probe(
        (keys[:, 1:].flatten(0, 1), many),
        (queries[:, 1:].flatten(0, 1), wanted.repeat(4, 1)),
        multi_label=True,
        l2_grid=(0.01,),
    ).scores
    near = knn_scores(keys[:, 1:].flatten(0, 1), many, queries[:, 1:].flatten(0, 1), k=7)
    expected = {
        "knn": measure_scores(knn_scores(keys[:, 0], targets, queries[:, 0], k=7), wanted, True),
        "linear": linear.value,
        "knn_cells": measure_scores(near.view(25, 4, 3).amax(1), wanted, True),
        "linear_cells": measure_scores(cells.view(25, 4, 3).amax(1), wanted, True),
    }
    assert found[10] == pytest.approx(expected, abs=0.01)
    assert len({round(value, 2) for value in expected.values()}) == 4 and found[0] != found[10]
    lines = [message for _, message in log if message.startswith("Probe ")]
    assert re.match(r"Probe at iteration 0: mAP knn \d+\.\d, linear \d+\.\d, knn of cells \d+", lines[0]), lines
    assert [line.split(":")[0] for line in lines[1:]] == [f"Probe at iteration {n}" for n in (5, 10, 15)]


def test_training_is_unchanged(config, labelled, tmp_path):
    """Weights, running statistics, optimizer and random numbers."""
    with_probe = train(config, tmp_path / "with", options(labelled))
    without = train(config, tmp_path / "without")
    assert_equal(state(with_probe), state(without))
    assert all(module.training for module in with_probe.model.modules())


def test_share_of_time_delays_all_but_the_first_and_last(config, labelled, tmp_path):
    train(config, tmp_path, options(labelled, max_share=1e-9))
    assert sorted(measures(tmp_path)) == [0, 15]


def test_sets_are_limited_to_random_images(config, labelled, tmp_path):
    runner = make_runner(config, tmp_path, options(labelled, max_images=30, grid=0))
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, ProbeHook)]
    seen = []
    original = hook._classify
    hook._classify = lambda features: seen.append([*hook._sets, *map(len, features)]) or original(features)
    runner.train()
    train_set, test_set, *sizes = seen[0]
    assert sizes == [30, 25] == [len(train_set.paths), len(test_set.paths)]
    whole = read_labelled(labelled / "train.csv")
    rows = [whole.paths.index(path) for path in train_set.paths]
    assert rows == sorted(rows) != list(range(30)) and np.array_equal(train_set.targets, whole.targets[rows])
    assert measures(tmp_path)[15].keys() == {"knn", "linear"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(max_images=1), "max_images must be an integer >= 2, got 1"),
        (dict(grid=-1), "grid must be an integer >= 0, got -1"),
        (dict(size=0), "size must be an integer >= 1, got 0"),
        (dict(k=2.5), "k must be an integer >= 1, got 2.5"),
        (dict(max_share=0), "max_share must be a share above 0 and up to 1, or None, got 0"),
        (dict(test="missing.csv"), "No labelled set at missing.csv"),
    ],
)
def test_wrong_setting_is_reported_before_training(changes, message, config, labelled, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        train(config, tmp_path, options(labelled, **changes))


def test_images_without_a_class_are_reported(config, labelled, tmp_path):
    (tmp_path / "empty.csv").write_text(f"file,red\n{labelled}/test_0.png,0\n{labelled}/test_1.png,0\n")
    with pytest.raises(ValueError, match=r"ProbeHook\.test: none of 2 images shows a class"):
        train(config, tmp_path / "run", options(labelled, test=str(tmp_path / "empty.csv")))


def test_single_training_image_is_reported(config, labelled, tmp_path):
    (tmp_path / "one.csv").write_text(f"file,red,green,blue\n{labelled}/train_0.png,1,0,0\n")
    with pytest.raises(ValueError, match=r"ProbeHook\.train has a single image"):
        train(config, tmp_path / "run", options(labelled, train=str(tmp_path / "one.csv")))


def test_map_smaller_than_the_grid_has_no_cells(config, labelled, tmp_path):
    """All its cells would be the image."""
    train(config, tmp_path, options(labelled, size=32, grid=2))
    assert measures(tmp_path)[15].keys() == {"knn", "linear"}


def test_shared_images_and_features_that_are_not_finite_are_reported(config, labelled, tmp_path, log):
    runner = make_runner(config, tmp_path, options(labelled, test=str(labelled / "train.csv")))
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, ProbeHook)]
    original = hook._features
    hook._features = lambda *args: original(*args) * math.nan
    with pytest.warns(UserWarning, match=r"test images \(ProbeHook\.test\) are training images, too"):
        runner.train()
    assert "No probe at iteration 15: features are NaN or infinite." in warnings_of(log)
    assert measures(tmp_path) == {}
