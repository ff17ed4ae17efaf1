"""What a trained pyramid looks like from inside."""

from sspyr_mm.reports.health import ScaleHealth, measure_health

__all__ = ["ScaleHealth", "measure_health"]
