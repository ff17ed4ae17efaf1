"""The metrics of multi-label classification, as mmengine evaluates them."""

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

    Where a sample has ``gt_score``, its entries of -1 are left out; else ``gt_label`` says what is shown. Every rank
    gathers its samples; mmengine collects them, so that the figures are those of one process.

    Args:
        voc11: Also give ``mAP_voc11``, the 11-point figure of VOC 2007.
        threshold: Scores of at least this are decisions (see :func:`classification_counts`).
        topk: Decide for the k surest classes of each image, instead.
        absent_as_zero: Count classes without a positive as 0 in ``mAP``, ``CP`` and ``CR``; default: leave them out.
        table: Whether to log the table.
        per_class: Whether to give the average precision of every class as a figure, too, ``AP_NAME``.
        diverged_as_nan: Where a score is nan or infinite, give nan as the only figure, not an error.
        collect_device: Of mmengine's ``BaseMetric``.
        prefix: Of the figures' names.
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
        self.diverged_as_nan = diverged_as_nan
        self.threshold, self.topk = threshold, topk
        self.absent_as_zero = absent_as_zero

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps scores and targets of a batch.

        Args:
            data_batch: Not used.
            data_samples: Samples with ``pred_score`` (L,), and ``gt_score`` (L,) or ``gt_label``.
        """
        for sample in data_samples:
            score = sample["pred_score"]
            target = sample["gt_score"] if "gt_score" in sample else label_to_onehot(sample["gt_label"], len(score))
            # Arrays: a thousandth of the time that tensors take between processes. Doubles: no new ties.
            arrays = score.detach().cpu().double().numpy(), target.cpu().numpy().astype(np.int8)
            self.results.append(arrays)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Computes the figures of all samples.

        Args:
            results: Pairs of scores and targets, of all ranks.

        Returns:
            Percent by name.
        """
        scores, targets = (torch.from_numpy(np.stack(part)) for part in zip(*results, strict=True))
        if self.diverged_as_nan and not scores.isfinite().all():
            return {"mAP": math.nan}
        columns = {"AP": average_precision(scores, targets)}
        if self.voc11:
            columns["AP_voc11"] = voc11_average_precision(scores, targets)
        figures = {
            f"m{name}": mean_of_classes(values, absent_as_zero=self.absent_as_zero) for name, values in columns.items()
        }
        if self.table:
            print_log(self._table(columns, targets), "current")
        if self.per_class:
            values = columns["AP"].tolist()
            figures |= {f"AP_{n}": 100 * v for n, v in zip(self._names(len(values)), values, strict=True)}
        counts = classification_counts(
            scores,
            targets,
            threshold=self.threshold,
            topk=self.topk,
            absent_as_zero=self.absent_as_zero,
        )
        return {**figures, **counts}

    def _names(self, num_classes: int) -> list[str]:
        return list((self.dataset_meta or {}).get("classes") or map(str, range(num_classes)))

    def _table(self, columns: dict[str, Tensor], targets: Tensor) -> str:
        """A line per class: images that show it, and its average precision; - where that is not defined."""
        num_classes = targets.shape[1]
        names = self._names(num_classes)
        width = max(5, *map(len, names))
        lines = [f"{'class':{width}} images" + "".join(f" {name:>8}" for name in columns)]
        for row, (name, shown) in enumerate(zip(names, (targets == 1).sum(0).tolist(), strict=True)):
            values = (100 * column[row].item() for column in columns.values())
            cells = (f" {'-':>8}" if value != value else f" {value:8.2f}" for value in values)
            lines.append(f"{name:{width}} {shown:6d}" + "".join(cells))
        return "\n".join(["Average precision per class, in percent", *lines])
