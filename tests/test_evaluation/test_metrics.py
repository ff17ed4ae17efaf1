"""Metrics against scikit-learn, and against definitions written out."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from sspyr_mm.evaluation.metrics import (
    average_precision,
    classification_counts,
    mean_average_precision,
    mean_of_classes,
    voc11_average_precision,
)


def problem(seed, *, ties=False, ignored=False, num_images=300, num_classes=9):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(num_images, num_classes))
    targets = (rng.random(scores.shape) < rng.uniform(0.02, 0.6, num_classes)).astype(np.int8)
    targets[0] = 1  # each class is there
    scores += 0.8 * targets
    if ties:
        scores = np.round(scores, 0 if seed % 2 else 1)
    if ignored:
        mask = rng.random(scores.shape) < 0.2
        mask[0] = False
        targets[mask] = -1
    return scores, targets


def per_class(function, scores, targets):
    kept = (targets >= 0).T
    return [function(targets[keep, c], scores[keep, c]) for c, keep in enumerate(kept)]


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_equals_scikit_learn(seed, ties, ignored):
    scores, targets = problem(seed, ties=ties, ignored=ignored)
    expected = per_class(average_precision_score, scores, targets)
    measured = average_precision(torch.tensor(scores), torch.tensor(targets))
    assert measured.dtype == torch.float64
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-9)
    assert mean_average_precision(scores, targets) == pytest.approx(100 * np.mean(expected))


def test_ties_of_float32_and_of_all_scores():
    scores, targets = problem(1)
    scores = scores.astype(np.float32)
    expected = per_class(average_precision_score, scores, targets)
    np.testing.assert_allclose(average_precision(scores, targets), expected, rtol=0, atol=1e-9)
    measured = average_precision(np.zeros_like(scores), targets)
    np.testing.assert_allclose(measured, targets.mean(0), rtol=0, atol=1e-9)


def test_order_of_images_does_not_matter():
    scores, targets = problem(3, ties=True, ignored=True)
    order = np.random.default_rng(0).permutation(len(scores))
    for metric in (average_precision, voc11_average_precision):
        torch.testing.assert_close(metric(scores, targets), metric(scores[order], targets[order]), rtol=0, atol=1e-12)


def test_ignored_images_count_as_absent():
    scores, targets = problem(4, ignored=True)
    for metric in (average_precision, voc11_average_precision):
        alone = [
            metric(scores[keep, c][:, None], targets[keep, c][:, None]).item()
            for c, keep in enumerate((targets >= 0).T)
        ]
        np.testing.assert_allclose(metric(scores, targets), alone, rtol=0, atol=1e-12)


def test_classes_without_a_positive():
    scores = torch.tensor([[3.0, 1.0, 1.0], [2.0, 2.0, 2.0], [1.0, 3.0, 3.0]])
    targets = torch.tensor([[0, 0, -1], [1, 0, 0], [0, 0, -1]])
    for metric in (average_precision, voc11_average_precision):
        values = metric(scores, targets)
        assert values.isnan().tolist() == [False, True, True]
        assert values[0] == pytest.approx(0.5)
    assert mean_average_precision(scores, targets) == pytest.approx(50)
    assert mean_average_precision(scores, targets, absent_as_zero=True) == pytest.approx(50 / 3)
    with pytest.raises(ValueError, match="No class has a positive image"):
        mean_average_precision(scores, torch.zeros_like(targets))
    with pytest.raises(ValueError, match="No class has a positive image"):
        mean_of_classes(torch.tensor([torch.nan]), absent_as_zero=True)


def voc11_written_out(targets, scores):
    order = np.argsort(-scores)
    hits = targets[order].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    best = [
        max(precision[10 * hits >= tenths * hits[-1]], default=0)  # recall of tenths / 10 at least
        for tenths in range(11)
    ]
    return np.mean(best)


@pytest.mark.parametrize("seed", range(4))
def test_eleven_points_equal_the_definition(seed):
    scores, targets = problem(seed, ignored=bool(seed % 2))
    expected = per_class(voc11_written_out, scores, targets)
    measured = voc11_average_precision(scores, targets)
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-12)
    assert (measured - average_precision(scores, targets)).abs().max() > 1e-4


def test_eleven_points_of_a_hand_computed_case():
    # Recall 1/2 at precision 1, recall 1 at precision 2/4: six points of 1, five of 1/2.
    scores, targets = np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[1], [0], [0], [1]])
    assert voc11_average_precision(scores, targets).item() == pytest.approx((6 + 5 * 0.5) / 11)


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("default_dtype")
def test_eleven_points_compare_recalls_exactly():
    # 3 / 10 is less than 3 x 0.1 in float64. Recall .3 at precision 1, recall 1 at 10 of 17.
    targets = np.array([1] * 3 + [0] * 7 + [1] * 7)[:, None]
    scores = np.arange(17, 0, -1.0)[:, None]
    expected = (4 * 1 + 7 * 10 / 17) / 11
    assert voc11_average_precision(scores, targets).item() == pytest.approx(expected)


def test_a_score_at_the_threshold_is_a_decision():
    scores, targets = np.array([[0.5, 0.5, 0.4]]), np.array([[1, 0, 1]])
    counts = classification_counts(scores, targets)
    assert (counts["OP"], counts["OR"]) == (50, 50)
    counts = classification_counts(scores, targets, threshold=0.4)
    assert (counts["OP"], counts["OR"]) == pytest.approx((200 / 3, 100))


@pytest.mark.parametrize("absent_as_zero", [False, True])
@pytest.mark.parametrize("topk", [None, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_scikit_learn(seed, topk, absent_as_zero):
    scores, targets = problem(seed)
    scores = 1 / (1 + np.exp(-scores))
    targets[:, 5] = 0  # never there
    scores[:, 6] = 0  # never predicted
    if topk is None:
        decided = scores >= 0.5
    else:
        decided = np.zeros_like(scores, bool)
        np.put_along_axis(decided, np.argsort(-scores, axis=1)[:, :topk], True, axis=1)
    kinds = {"average": "macro", "zero_division": 0}
    averaged = range(9) if absent_as_zero else [0, 1, 2, 3, 4, 6, 7, 8]
    macro = [f(targets[:, averaged], decided[:, averaged], **kinds) for f in (precision_score, recall_score)]
    kinds["average"] = "micro"
    micro = [f(targets, decided, **kinds) for f in (precision_score, recall_score, f1_score)]
    counts = classification_counts(scores, targets, topk=topk, absent_as_zero=absent_as_zero)
    expected = [*macro, 2 * macro[0] * macro[1] / sum(macro), *micro]
    assert list(counts) == ["CP", "CR", "CF1", "OP", "OR", "OF1"]
    assert list(counts.values()) == pytest.approx([100 * value for value in expected])


def test_counts_exclude_ignored_entries():
    scores, targets = problem(7, ignored=True)
    kept = [(targets[k, c], scores[k, c] >= 0.5) for c, k in enumerate((targets >= 0).T)]
    counts = classification_counts(scores, targets)
    assert counts["CP"] == pytest.approx(100 * np.mean([precision_score(*part) for part in kept]))
    assert counts["CR"] == pytest.approx(100 * np.mean([recall_score(*part) for part in kept]))
    pooled = [np.concatenate(parts) for parts in zip(*kept, strict=True)]
    assert counts["OF1"] == pytest.approx(100 * f1_score(*pooled))
    # The surest class is ignored: the next one takes its place.
    first = classification_counts([[0.9, 0.8, 0.1]], np.array([[-1, 1, 0]]), topk=1)
    assert (first["OP"], first["OR"]) == (100, 100)


def test_class_means_exclude_classes_without_a_positive():
    # Perfect on the one class there is; the second is decided for wrongly, the third is ignored everywhere.
    scores = np.array([[0.9, 0.9, 0.9], [0.1, 0.1, 0.9]])
    targets = np.array([[1, 0, -1], [0, 0, -1]])
    counts = classification_counts(scores, targets)
    assert (counts["CP"], counts["CR"], counts["CF1"]) == (100, 100, 100)
    assert (counts["OP"], counts["OR"]) == (50, 100)
    counts = classification_counts(scores, targets, absent_as_zero=True)
    assert counts["CP"] == counts["CR"] == counts["CF1"] == pytest.approx(100 / 3)


def test_counts_without_predictions_and_positives_are_zero():
    counts = classification_counts(np.zeros((3, 2)), np.zeros((3, 2), int))
    assert set(counts.values()) == {0}


def test_invalid_input_is_rejected():
    scores, targets = problem(0)
    with pytest.raises(ValueError, match=r"the shape \(images, classes\), got \(300, 9\)"):
        average_precision(scores, targets[:, 1:])
    with pytest.raises(ValueError, match=r"the shape \(images, classes\), got \(0, 9\)"):
        average_precision(scores[:0], targets[:0])
    with pytest.raises(ValueError, match="scores contain NaN"):
        average_precision(np.where(scores > 1, np.nan, scores), targets)
    with pytest.raises(ValueError, match=r"targets must be 1, 0 or -1 \(ignored\), got \[.*2\]"):
        average_precision(scores, targets + 1)
    with pytest.raises(ValueError, match=r"topk must be between 1 and 9, .*got 10"):
        classification_counts(scores, targets, topk=10)
