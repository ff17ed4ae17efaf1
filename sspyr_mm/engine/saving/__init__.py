"""Saving and finding the checkpoints of a run."""

from sspyr_mm.engine.saving.checkpoint_hook import KeepingCheckpointHook, UnwritableError
from sspyr_mm.engine.saving.interrupt_hook import InterruptHook
from sspyr_mm.engine.saving.run_checkpoints import newest_whole

__all__ = ["InterruptHook", "KeepingCheckpointHook", "UnwritableError", "newest_whole"]
