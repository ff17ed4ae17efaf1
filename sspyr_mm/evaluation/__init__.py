"""Linear probes and metrics."""

from sspyr_mm.evaluation.features import extract_features
from sspyr_mm.evaluation.linear_probe import ProbeResult, linear_probe
from sspyr_mm.evaluation.metrics import (
    average_precision,
    classification_counts,
    mean_average_precision,
    voc11_average_precision,
)
from sspyr_mm.evaluation.multi_label_report import MultiLabelReport

__all__ = [
    "MultiLabelReport",
    "ProbeResult",
    "average_precision",
    "classification_counts",
    "extract_features",
    "linear_probe",
    "mean_average_precision",
    "voc11_average_precision",
]
