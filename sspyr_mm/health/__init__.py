"""Health of pre-training, without labels: tensors of a step, measures of them, and verdicts."""

from sspyr_mm.health.measures import GroupHealth, measure_features, measure_group
from sspyr_mm.health.recording import record, start_recording, stop_recording
from sspyr_mm.health.verdicts import Finding, judge

__all__ = [
    "Finding",
    "GroupHealth",
    "judge",
    "measure_features",
    "measure_group",
    "record",
    "start_recording",
    "stop_recording",
]
