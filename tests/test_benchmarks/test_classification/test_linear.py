"""The linear protocol: which images train, which choose the learning rate, and how the result is measured."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from quick_evaluate import quick_evaluate
from sklearn.metrics import average_precision_score

from sspyr_mm.benchmarks.classification import linear
from sspyr_mm.benchmarks.classification.linear import choose_rate, run_linear
from sspyr_mm.benchmarks.classification.linear_grid import LinearRecipe, train_grid
from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData, Source
from sspyr_mm.datasets.labelled import LabelledImages
from sspyr_mm.evaluation.metrics import mean_average_precision
from sspyr_mm.features.extraction import CentreCrops, FrozenEncoder

N = 20
ONE_EPOCH = LinearRecipe(epochs=1, learning_rates=(0.1,))


def held_out_images(seed):
    """Images that choose the rate: average precision is undefined if none of them shows the class."""
    features, held = torch.rand(N, 3), []
    for image in range(N):
        targets = torch.zeros(N, 1)
        targets[image] = 1
        try:
            choose_rate(features, targets, ONE_EPOCH, seed=seed)
        except ValueError as error:
            assert "No class has a positive image" in str(error)
        else:
            held.append(image)
    return held


def test_a_fifth_of_the_images_is_held_out_by_seed():
    held = [held_out_images(seed) for seed in range(3)]
    assert [len(images) for images in held] == [N // 5] * 3
    assert held[0] != held[1] != held[2]


@pytest.mark.parametrize("seed", range(3))
def test_held_out_images_are_not_learned(seed):
    """Every image has its own channel, so its features are learned only from its own label."""
    held = held_out_images(seed)
    targets = torch.zeros(N, 4)
    targets[held, :] = 1 - torch.eye(4)  # of each class one in four is negative
    recipe = LinearRecipe(epochs=20, learning_rates=(1.0,), init_std=0.0)
    (found,) = choose_rate(10 * torch.eye(N), targets, recipe, seed=seed).values()
    assert found == pytest.approx(75)  # of scores that are all equal
    learned = train_grid(10 * torch.eye(N), targets, recipe, seed=seed)
    scores = learned.scores(10 * torch.eye(N), 0)[held]
    assert mean_average_precision(scores, targets[held]) == pytest.approx(100)


class Pixels(torch.nn.Module):
    """A backbone whose features are coarse pixels."""

    def forward(self, images):
        return (torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1),)


def labelled(folder, rng, count):
    folder.mkdir()
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (18, 18, 3), np.uint8)).save(folder / f"{index}.png")
    paths = [str(folder / f"{index}.png") for index in range(count)]
    targets = rng.integers(0, 2, (count, 3)).astype(np.int8)
    return LabelledImages(paths, targets, ("a", "b", "c"), multi_label=True, image_ids=tuple(paths))


@pytest.mark.parametrize("rates", [(0.01, 0.1), (0.1,)], ids=["grid", "one_rate"])
def test_final_classifier_trains_on_all_training_images(tmp_path, rates):
    rng = np.random.default_rng(0)
    train, test = (labelled(tmp_path / part, rng, 30) for part in ("train", "test"))
    data = BenchmarkData("own", Source("train"), Source("test"), train, test)
    encoder = FrozenEncoder(Pixels(), (128, 128, 128), (58, 58, 58), identity="pixels")
    recipe = LinearRecipe(epochs=3, batch_size=8, learning_rates=rates)
    options = dict(size=16, seed=4, cache_dir=str(tmp_path / "features"), devices=("cpu",))
    scores, further = run_linear(encoder, data, recipe, **options)

    features, others = (
        encoder(torch.stack(list(map(CentreCrops(part.paths, 16).__getitem__, range(30))))) for part in (train, test)
    )
    labels = torch.from_numpy(train.targets)
    wanted = train_grid(features, labels, recipe, seed=4)
    torch.testing.assert_close(scores, wanted.scores(others, rates.index(further["learning_rate"])))
    for index, rate in enumerate(rates):
        value = mean_average_precision(wanted.scores(others, index), test.targets)
        assert further["mAP_of_all_rates"][str(rate)] == pytest.approx(value)


def test_figure_equals_scikit_learn(networks, data, tmp_path, monkeypatch):
    kept = {}
    original = linear.run_linear

    def keep(*args, **kwargs):
        kept["scores"], further = original(*args, **kwargs)
        return kept["scores"], further

    monkeypatch.setattr(linear, "run_linear", keep)
    result = quick_evaluate(networks[0], "linear", data, tmp_path)
    truth = data.test.targets
    assert (truth >= 0).all()
    shown = truth.sum(0) > 0
    expected = average_precision_score(truth[:, shown], kept["scores"].numpy()[:, shown])
    assert result.value == pytest.approx(100 * expected, abs=1e-7)


def test_rate_is_chosen_without_the_test_images(networks, data, tmp_path):
    result = quick_evaluate(networks[0], "linear", data, tmp_path)
    swapped = BenchmarkData(
        data.name, data.train_source, data.test_source, data.train, replace(data.test, targets=1 - data.test.targets)
    )
    other = quick_evaluate(networks[0], "linear", swapped, tmp_path)
    assert other.further["held_out_mAP"] == result.further["held_out_mAP"]
    assert other.further["learning_rate"] == result.further["learning_rate"]
    assert other.value != result.value


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="3 training images are too few"):
        choose_rate(torch.rand(3, 2), torch.ones(3, 1), LinearRecipe(), seed=0)


def test_diverged_rates_are_nan():
    features, targets = 1e30 * torch.rand(10, 2), torch.randint(0, 2, (10, 1))
    recipe = LinearRecipe(epochs=4, learning_rates=(1.0, 3.0))
    assert all(math.isnan(v) for v in choose_rate(features, targets, recipe, seed=0).values())
