"""Multi-label classification: linear classifiers on frozen features, or fine-tuning of the whole network."""

from sspyr_mm.benchmarks.classification.linear_probe import ProbeResult, linear_probe

__all__ = ["ProbeResult", "linear_probe"]
