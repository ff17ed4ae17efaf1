"""Measures how fast this package loads, augments and trains on a machine."""
