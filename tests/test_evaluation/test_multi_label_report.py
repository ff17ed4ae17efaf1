"""The report as mmengine's evaluator runs it, on one process and with ignored entries."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample
from sklearn.metrics import average_precision_score

from sspyr_mm.evaluation.metrics import classification_counts, mean_average_precision, voc11_average_precision

CLASSES = ("cart", "tree", "a class of a long name", "none")


def problem(num_images=60):
    rng = np.random.default_rng(5)
    targets = (rng.random((num_images, len(CLASSES))) < 0.3).astype(np.int8)
    targets[:, 3] = 0
    scores = torch.sigmoid(torch.tensor(rng.normal(size=targets.shape) + 0.5 * targets))
    targets[rng.random(targets.shape) < 0.1] = -1
    return scores.float(), torch.tensor(targets)


def evaluate(scores, targets, **settings):
    samples = [
        DataSample().set_pred_score(score).set_gt_score(target.float())
        for score, target in zip(scores, targets, strict=True)
    ]
    metric = METRICS.build({"type": "MultiLabelReport", **settings})
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {"classes": CLASSES}
    for start in range(0, len(samples), 16):
        evaluator.process(data_samples=samples[start : start + 16])
    return evaluator.evaluate(len(samples))


def test_report_equals_the_metric_functions():
    scores, targets = problem()
    found = evaluate(scores, targets, voc11=True)
    expected = {
        "mAP": mean_average_precision(scores, targets),
        "mAP_voc11": 100 * voc11_average_precision(scores, targets)[:3].mean().item(),
        **classification_counts(scores, targets),
    }
    assert found == pytest.approx({f"multi-label/{k}": v for k, v in expected.items()})
    by_class = [
        average_precision_score(targets[kept, c], scores[kept, c])
        for c in range(3)
        if (kept := targets[:, c] >= 0).any()
    ]
    assert found["multi-label/mAP"] == pytest.approx(100 * np.mean(by_class))


def test_settings_are_those_of_the_metric_functions():
    scores, targets = problem()
    found = evaluate(scores, targets, topk=1, absent_as_zero=True, prefix="top-1")
    assert found["top-1/OF1"] == classification_counts(scores, targets, topk=1)["OF1"]
    assert found["top-1/mAP"] == mean_average_precision(scores, targets, absent_as_zero=True)
    counts = classification_counts(scores, targets, topk=1, absent_as_zero=True)
    assert found["top-1/CR"] == counts["CR"]
    found = evaluate(scores, targets, threshold=0.7)
    assert found["multi-label/CP"] == classification_counts(scores, targets, threshold=0.7)["CP"]


@pytest.mark.parametrize("table", [True, False])
def test_table_has_a_line_per_class(table, tmp_path):
    scores, targets = problem()
    log = tmp_path / "log.txt"
    MMLogger.get_instance(f"table {table}", log_file=str(log))
    evaluate(scores, targets, table=table)
    lines = [line for line in log.read_text().splitlines() if line.startswith(CLASSES)]
    if not table:
        assert not lines
        return
    assert [line.rsplit(maxsplit=2)[0].strip() for line in lines] == list(CLASSES)
    value = average_precision_score(*(x[targets[:, 1] >= 0, 1] for x in (targets, scores)))
    assert lines[1].split() == ["tree", str(int((targets[:, 1] == 1).sum())), f"{100 * value:.2f}"]
    assert lines[3].split() == ["none", "0", "-"]


def test_labels_replace_missing_scores_in_half_precision():
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.8], [0.3, 0.4]], dtype=torch.bfloat16)
    samples = [
        DataSample().set_pred_score(score).set_gt_label(label)
        for score, label in zip(scores, ([0, 1], [1], []), strict=True)
    ]
    evaluator = Evaluator(METRICS.build({"type": "MultiLabelReport"}))
    evaluator.process(data_samples=samples)
    found = evaluator.evaluate(3)
    assert found["multi-label/mAP"] == pytest.approx(100 * (1 + (1 + 2 / 3) / 2) / 2)
