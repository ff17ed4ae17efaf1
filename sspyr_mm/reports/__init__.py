"""Reports on views, trained pyramids and predictions."""

from sspyr_mm.reports.health import Health, measure_health

__all__ = ["Health", "measure_health"]
