"""Linear probes."""

from sspyr_mm.evaluation.features import extract_features
from sspyr_mm.evaluation.labelled_images import LabelledImages, read_labelled
from sspyr_mm.evaluation.linear_probe import ProbeResult, linear_probe, mean_average_precision

__all__ = [
    "LabelledImages",
    "ProbeResult",
    "extract_features",
    "linear_probe",
    "mean_average_precision",
    "read_labelled",
]
