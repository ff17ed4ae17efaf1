"""Counters of what a step asks of the device, of memory and of other processes: the same numbers on every machine."""
