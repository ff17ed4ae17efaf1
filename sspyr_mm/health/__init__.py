"""Health of pre-training, without labels: tensors of a step, measures of them, and verdicts."""

from sspyr_mm.health.describe import HEALTH_FILE, describe, format_table
from sspyr_mm.health.measures import FEATURES, MAX_ROWS, GroupHealth, measure_features, measure_group
from sspyr_mm.health.recording import record, start_recording, stop_recording
from sspyr_mm.health.verdicts import Finding, judge

__all__ = [
    "FEATURES",
    "HEALTH_FILE",
    "MAX_ROWS",
    "Finding",
    "GroupHealth",
    "describe",
    "format_table",
    "judge",
    "measure_features",
    "measure_group",
    "record",
    "start_recording",
    "stop_recording",
]
