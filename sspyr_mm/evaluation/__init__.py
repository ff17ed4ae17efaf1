"""Metrics for multi-label classification."""

from sspyr_mm.evaluation.metrics import (
    average_precision,
    classification_counts,
    mean_average_precision,
    voc11_average_precision,
)
from sspyr_mm.evaluation.multi_label_report import MultiLabelReport

__all__ = [
    "MultiLabelReport",
    "average_precision",
    "classification_counts",
    "mean_average_precision",
    "voc11_average_precision",
]
