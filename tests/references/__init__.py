"""Slow, independent float64 implementations, written from the paper and the release, not from sspyr_mm."""
