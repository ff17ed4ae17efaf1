"""Sinkhorn codes, and the queue that enlarges their batch."""

from sspyr_mm.models.assigners.feature_queue import FeatureQueue
from sspyr_mm.models.assigners.sinkhorn_assigner import SinkhornAssigner, sinkhorn

__all__ = ["FeatureQueue", "SinkhornAssigner", "sinkhorn"]
