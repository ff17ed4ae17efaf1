"""Slow, independent float64 implementations, written from the paper and the authors' code, not from sspyr_mm."""
