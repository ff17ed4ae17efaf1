"""mmengine's Runner, whose checkpoints survive kills, full disks, damage and a second run in the same folder."""

import contextlib
import os
import weakref
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from sspyr_mm.engine.config import plain_name
from sspyr_mm.engine.saving.checkpoint_hook import KeepingCheckpointHook, UnwritableError
from sspyr_mm.engine.saving.run_checkpoints import is_local, newest_whole, set_aside
from sspyr_mm.files import FolderInUseError, folder_lock, whole_file
from sspyr_mm.tensor_files import safe_loading

_LOCK = "training.lock"
_PATIENCE = 15.0
"""Time in seconds for which a run waits for the workers of a killed one to end."""


@RUNNERS.register_module()
class TrainingRunner(Runner):
    """Runner that reads checkpoints without executing them, and loses none.

    - One run at a time trains in a work dir: a second one is refused before it writes anything.
    - A checkpoint is written to a partial file, which replaces its name when it is on the disk. The CRC-32 of every
      record in it is verified when it is read.
    - ``resume`` without ``load_from`` continues from the newest whole checkpoint in the work dir, and warns of damaged
      ones. If all are damaged, training does not begin anew.
    - Checkpoints of an earlier run that follow the iteration at which this one begins are moved to a folder of the
      work dir, so that the two do not mix.
    - No checkpoint, of any loader of mmengine, is unpickled beyond tensors and plain values, unless the config has
      ``allow_pickle=True``.

    Arguments are those of mmengine's Runner. ``CheckpointHook`` in ``default_hooks`` becomes
    :class:`KeepingCheckpointHook`.

    Raises:
        UnwritableError: If the work dir cannot be written.
        ValueError: If another run trains in the work dir, or resuming finds damaged checkpoints only.
    """

    _has_loaded: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held = contextlib.ExitStack()
        weakref.finalize(self, self._held.close)
        try:
            super().__init__(*args, **kwargs)
        except BaseException as error:
            self._held.close()
            if isinstance(error, OSError) and str(error.filename).startswith(self._work_dir):
                raise UnwritableError(
                    error.errno, f"{self._work_dir} cannot be written ({error.strerror}): give another --work-dir"
                ) from error
            raise

    def setup_env(self, env_cfg: dict) -> None:
        """Sets up the environment, and locks the work dir before anything is written to it."""
        super().setup_env(env_cfg)
        self._left_by = ""
        if self._train_loop is None or not is_main_process():
            return
        try:
            self._left_by = self._held.enter_context(folder_lock(self.work_dir, _LOCK, patience=_PATIENCE)).left_by
        except FolderInUseError as error:
            raise ValueError(
                f"Another run ({error}) trains in {self.work_dir}: wait for it, stop it, or give another --work-dir"
            ) from error
        for partial in Path(self.work_dir).glob("*.pth.*.partial"):  # of a killed run
            partial.unlink()

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        """Registers the default hooks, with :class:`KeepingCheckpointHook` in place of ``CheckpointHook``."""
        hooks = dict(hooks or {})
        checkpoint = hooks.get("checkpoint", dict(type="CheckpointHook", interval=1))
        if isinstance(checkpoint, dict) and plain_name(str(checkpoint.get("type"))) == "CheckpointHook":
            hooks["checkpoint"] = {**checkpoint, "type": KeepingCheckpointHook}
        super().register_default_hooks(hooks)

    def train(self) -> nn.Module:
        """Trains, with the work dir locked."""
        if self._left_by:
            self.logger.warning(f"The last run in {self.work_dir} ({self._left_by}) was killed")
        try:
            with safe_loading(allow_pickle=self._allow_pickle):
                return super().train()
        finally:
            self._held.close()

    def load_or_resume(self) -> None:
        """Loads weights, or resumes from the newest whole checkpoint or the given one. Collective."""
        if not self._has_loaded and self._resume and self._load_from is None:
            if (newest := self._newest()) is not None:
                self.resume(newest)
            self._has_loaded = True
        super().load_or_resume()
        if is_main_process() and (folder := set_aside(self.work_dir, after=self.iter)):
            self.logger.warning(
                f"The checkpoints of an earlier run that follow iteration {self.iter} are now in {folder}. To continue "
                f"that run instead: --resume {folder}/CHECKPOINT"
            )

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Saves a checkpoint; a file of that name on the disk is replaced only when the new one is complete.

        Arguments are those of mmengine's Runner. Only the main process saves.
        """
        if not is_main_process():
            return
        if not is_local(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with whole_file(os.path.join(out_dir, filename)) as partial:
            super().save_checkpoint(out_dir, partial.name, *args, **kwargs)

    @property
    def _allow_pickle(self) -> bool:
        return bool(self.cfg.get("allow_pickle"))

    def _newest(self) -> str | None:
        """Finds the checkpoint to resume from in the main process. Collective."""
        found: list[Any] = [None, None]
        if is_main_process():
            try:
                newest, warnings = newest_whole(self.work_dir, allow_pickle=self._allow_pickle)
                for warning in warnings:
                    self.logger.warning(warning)
                found = [newest, None]
            except ValueError as error:
                found = [None, str(error)]
        broadcast_object_list(found)
        if found[1]:
            raise ValueError(found[1])
        if found[0] is None:
            self.logger.info(f"{self.work_dir} has no checkpoint to resume from: training begins")
        return found[0]
