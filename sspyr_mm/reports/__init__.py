"""Reports on views, trained pyramids and predictions."""

from sspyr_mm.reports.health import ScaleHealth, measure_health

__all__ = ["ScaleHealth", "measure_health"]
