"""Metrics of multi-label classification for mmengine's evaluator."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmpretrain.registry import METRICS
from mmpretrain.structures import label_to_onehot
from torch import Tensor

from sspyr_mm.evaluation.metrics import (
    average_precision,
    classification_counts,
    mean_of_classes,
    voc11_average_precision,
)


@METRICS.register_module()
class MultiLabelReport(BaseMetric):
    """``mAP``, ``CP``, ``CR``, ``CF1``, ``OP``, ``OR``, ``OF1`` in percent, and a table of the classes in the log.

    If a sample has ``gt_score``, its entries of -1 are ignored; otherwise ``gt_label`` lists its classes. Every rank
    gathers its samples and mmengine collects them, so that the results equal those of one process.

    Args:
        voc11: Whether to report ``mAP_voc11``, the 11-point average precision of VOC 2007.
        threshold: Lowest score that counts as a decision (see :func:`classification_counts`).
        topk: Number of classes to decide for per image, by score, instead of a threshold.
        absent_as_zero: Whether to count classes without a positive as 0 in ``mAP``, ``CP`` and ``CR``.
        table: Whether to log the table.
        per_class: Whether to report the average precision of every class as ``AP_NAME``.
        diverged_as_nan: Whether NaN or infinite scores give NaN as the only result instead of an error.
        collect_device: Argument of mmengine's ``BaseMetric``.
        prefix: Prefix of the names of the results.
    """

    default_prefix = "multi-label"

    def __init__(
        self,
        *,
        voc11: bool = False,
        threshold: float = 0.5,
        topk: int | None = None,
        absent_as_zero: bool = False,
        table: bool = True,
        per_class: bool = False,
        diverged_as_nan: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.voc11, self.table, self.per_class = voc11, table, per_class
        self.diverged_as_nan, self.absent_as_zero = diverged_as_nan, absent_as_zero
        self.threshold, self.topk = threshold, topk

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps ``pred_score`` (L,), and ``gt_score`` (L,) or ``gt_label``, of a batch of samples."""
        for sample in data_samples:
            score = sample["pred_score"]
            target = sample["gt_score"] if "gt_score" in sample else label_to_onehot(sample["gt_label"], len(score))
            # Arrays: a thousand times faster between processes than tensors. Doubles: no new ties.
            arrays = score.detach().cpu().double().numpy(), target.cpu().numpy().astype(np.int8)
            self.results.append(arrays)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Computes the metrics in percent from the scores and targets of all ranks."""
        scores, targets = (torch.from_numpy(np.stack(part)) for part in zip(*results, strict=True))
        if self.diverged_as_nan and not scores.isfinite().all():
            return {"mAP": math.nan}
        columns = {"AP": average_precision(scores, targets)}
        if self.voc11:
            columns["AP_voc11"] = voc11_average_precision(scores, targets)
        metrics = {
            f"m{name}": mean_of_classes(values, absent_as_zero=self.absent_as_zero) for name, values in columns.items()
        }
        names = list((self.dataset_meta or {}).get("classes") or map(str, range(targets.shape[1])))
        if self.table:
            print_log(_table(names, (targets == 1).sum(0), columns), "current")
        if self.per_class:
            metrics |= {f"AP_{name}": 100 * value for name, value in zip(names, columns["AP"].tolist(), strict=True)}
        counts = classification_counts(
            scores, targets, threshold=self.threshold, topk=self.topk, absent_as_zero=self.absent_as_zero
        )
        return {**metrics, **counts}


def _table(names: list[str], num_images: Tensor, columns: dict[str, Tensor]) -> str:
    """Formats one line per class: number of its images, and average precisions or -."""
    width = max(5, *map(len, names))
    lines = [
        "Average precision per class, in percent",
        f"{'class':{width}} images" + "".join(f" {title:>8}" for title in columns),
    ]
    for row, (name, shown) in enumerate(zip(names, num_images.tolist(), strict=True)):
        values = [100 * column[row].item() for column in columns.values()]
        cells = (f" {'-':>8}" if math.isnan(value) else f" {value:8.2f}" for value in values)
        lines.append(f"{name:{width}} {shown:6d}" + "".join(cells))
    return "\n".join(lines)
