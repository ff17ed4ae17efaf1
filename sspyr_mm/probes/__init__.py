"""Probes: quick measures of frozen features on labelled images, after and during pre-training."""

from sspyr_mm.probes.knn import knn_scores
from sspyr_mm.probes.linear_probe import ProbeResult, linear_probe, measure_scores
from sspyr_mm.probes.probe_hook import ProbeHook

__all__ = ["ProbeHook", "ProbeResult", "knn_scores", "linear_probe", "measure_scores"]
