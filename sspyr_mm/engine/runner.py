"""mmengine's Runner, whose checkpoints survive kills, full disks, damage and a second run in the same folder."""

import contextlib
import errno
import os
import re
import weakref
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, Runner
from torch import nn

from sspyr_mm.engine.config import dicts_of_type
from sspyr_mm.engine.saving.checkpoint_hook import KeepingCheckpointHook, UnwritableError
from sspyr_mm.engine.saving.run_checkpoints import is_local, name_patterns, newest_whole, set_aside
from sspyr_mm.files import FolderInUseError, folder_lock, remove_partial, whole_file
from sspyr_mm.tensor_files import safe_loading

_LOCK = "training.lock"
_PATIENCE = 15.0
"""Time in seconds for which a run waits for the workers of a killed one to end."""


@RUNNERS.register_module()
class TrainingRunner(Runner):
    """Runner that reads checkpoints without executing them, and loses none.

    - One run at a time trains in a work dir: a second one is refused before it changes a file of the first.
    - A checkpoint is written to a partial file, which replaces its name when it is on the disk. The CRC-32 of every
      record in it is verified when it is read.
    - ``resume`` without ``load_from`` continues from the newest whole checkpoint in the work dir, and warns of damaged
      ones. If all are damaged, training does not begin anew.
    - Checkpoints of an earlier run that follow the iteration at which this one begins are moved to a folder next
      to them, so that the two do not mix.
    - No checkpoint, of any loader of mmengine, is unpickled beyond tensors and plain values, unless the config has
      ``allow_pickle=True``.

    Arguments are those of mmengine's Runner. ``CheckpointHook`` of a config becomes :class:`KeepingCheckpointHook`.

    Raises:
        UnwritableError: If the work dir cannot be written.
        ValueError: If another run trains in the work dir, or resuming finds damaged checkpoints only.
    """

    _has_loaded: bool
    _resumed_from: str | None = None
    # Once weights or state are loaded: the iteration, and the folders, which the hooks that save change later.
    _begins: tuple[int, list[str]] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held = contextlib.ExitStack()
        weakref.finalize(self, self._held.close)
        try:
            super().__init__(*args, **kwargs)
        except BaseException as error:
            self._held.close()
            if isinstance(error, OSError) and self._is_about_work_dir(error):
                raise UnwritableError(
                    error.errno, f"{self._work_dir} cannot be written ({error.strerror}): give another --work-dir"
                ) from error
            raise

    def setup_env(self, env_cfg: dict) -> None:
        """Sets up the environment, and locks the work dir if it is free."""
        super().setup_env(env_cfg)
        self._left_by, self._is_locked = "", False
        if self._train_loop is not None and is_main_process():
            with contextlib.suppress(FolderInUseError):  # train() waits, and reports it
                self._lock(patience=0)

    def dump_config(self) -> None:
        """Writes the config to the work dir, unless another run trains there."""
        if self._is_locked or self._train_loop is None:
            super().dump_config()

    def register_hook(self, hook: Hook | dict, priority: Any = None) -> None:
        """Registers a hook; :class:`KeepingCheckpointHook` in place of mmengine's ``CheckpointHook``."""
        if isinstance(hook, dict) and next(dicts_of_type(hook, "CheckpointHook"), None) is hook:
            hook = {**hook, "type": KeepingCheckpointHook}
        super().register_hook(hook, priority)

    def train(self) -> nn.Module:
        """Trains, with the work dir locked."""
        try:
            if is_main_process():
                self._claim()
            with safe_loading(allow_pickle=self._allow_pickle):
                return super().train()
        finally:
            self._release()

    def val(self) -> dict:
        """Validates; the work dir is not locked."""
        self._release()
        with safe_loading(allow_pickle=self._allow_pickle):
            return super().val()

    def test(self) -> dict:
        """Tests; the work dir is not locked."""
        self._release()
        with safe_loading(allow_pickle=self._allow_pickle):
            return super().test()

    def load_or_resume(self) -> None:
        """Loads weights, or resumes from the newest whole checkpoint or the given one. Collective."""
        if self._has_loaded or not isinstance(self._train_loop, BaseLoop):  # of a test, which changes no file
            super().load_or_resume()
            return
        if self._resume and self._load_from is None:
            if (newest := self._newest()) is not None:
                self.resume(newest)
            self._has_loaded = True
        super().load_or_resume()
        folders = self._folders()
        is_here = bool(self._load_from) and any(
            Path(self._load_from).resolve().parent == Path(folder).resolve() for folder in folders
        )
        if self._resume and self._load_from and not is_here:  # the numbers of that folder's files
            self.message_hub.runtime_info.pop("keep_ckpt_ids", None)
        self._begins = self.iter if self._resume and (is_here or not self._load_from) else -1, folders

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resumes training from a checkpoint; raises ValueError if it has no state of training."""
        self._resumed_from = filename
        try:
            super().resume(filename, *args, **kwargs)
        finally:
            self._resumed_from = None

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

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls the hooks of a stage, and does what has to be done in front of them or after them.

        A checkpoint to be saved loses the functions in the state of its schedulers. ``OneCycleLR`` has one, which its
        constructor sets: the file would need arbitrary pickle to be read.
        """
        if fn_name == "before_save_checkpoint":
            found = kwargs["checkpoint"].get("param_schedulers", [])
            for states in found.values() if isinstance(found, dict) else [found]:
                for state in states:
                    for name in [name for name, value in state.items() if callable(value)]:
                        del state[name]
        if fn_name == "after_load_checkpoint" and self._resumed_from is not None:
            _check_resumable(kwargs["checkpoint"], self._resumed_from)
        super().call_hook(fn_name, **kwargs)
        if fn_name == "before_train":  # nothing refuses the run from here on
            self._set_earlier_aside()

    def _set_earlier_aside(self) -> None:
        """Moves the checkpoints of an earlier run that follow the iteration at which this one begins. Collective."""
        if self._begins is None:
            return
        (after, folders), self._begins = self._begins, None
        barrier()  # other ranks may still read
        if not is_main_process():
            return
        keep = self._load_from if self._resume else None  # weights are loaded: their file is one of an earlier run
        options: dict[str, Any] = {"names": self._names(), "allow_pickle": self._allow_pickle}
        for folder in set_aside(folders, after=after, keep=keep, **options):
            self.logger.warning(
                f"The checkpoints of an earlier run, which would mix with those of this one, are now in {folder}. To "
                f"continue that run instead: --resume {folder}/CHECKPOINT --work-dir OTHER"
            )

    @property
    def _allow_pickle(self) -> bool:
        return bool(self.cfg.get("allow_pickle"))

    def _folders(self) -> list[str]:
        """Returns the folders on the disk in which the run saves checkpoints, the work dir first."""
        folders = [self.work_dir]
        for hook in self._saving():
            given = hook.out_dir
            if given and is_local(given) and given != self.work_dir:  # as mmengine compares them
                folders.append(os.path.join(given, os.path.basename(self.work_dir)))
        return list(dict.fromkeys(map(os.path.abspath, folders)))

    def _saving(self) -> list[CheckpointHook]:
        return [hook for hook in self.hooks if isinstance(hook, CheckpointHook)]

    def _names(self) -> list[str]:
        """Returns regular expressions for the names that the config gives to checkpoints."""
        return [name for template in self._templates() for name in name_patterns(template)]

    def _templates(self) -> list[str]:
        return [hook.filename_tmpl for hook in self._saving() if hook.filename_tmpl]

    def _lock(self, patience: float) -> None:
        self._left_by = self._held.enter_context(folder_lock(self.work_dir, _LOCK, patience=patience)).left_by
        self._is_locked = True

    def _claim(self) -> None:
        """Locks the folders of checkpoints for training, and removes what a killed run left there."""
        folder = self.work_dir
        try:
            if not self._is_locked:
                self._lock(_PATIENCE)
                self.dump_config()
            for folder in self._folders()[1:]:  # two work dirs of the same name may share one
                with contextlib.suppress(OSError):  # one that cannot be written is reported before the first step
                    os.makedirs(folder, exist_ok=True)
                    self._held.enter_context(folder_lock(folder, _LOCK, patience=_PATIENCE))
        except FolderInUseError as error:
            raise ValueError(
                f"Another run ({error}) trains in {folder}: wait for it, stop it, or give another --work-dir"
            ) from error
        if self._left_by:
            self.logger.warning(f"The last run in {self.work_dir} ({self._left_by}) was killed")
        for folder in self._folders():
            remove_partial(Path(folder), "*.pth.*.partial", "trial.*.partial", *self._partial_names())

    def _partial_names(self) -> list[str]:
        """Returns patterns of files whose writing was interrupted, of checkpoints whose names the config gives."""
        return [re.sub(r"({.*?}|\*)+", "*", f"*{template}.*.partial") for template in self._templates()]

    def _release(self) -> None:
        self._held.close()
        self._is_locked = False

    def _is_about_work_dir(self, error: OSError) -> bool:
        if error.filename is None:  # of a write
            return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return f"{error.filename}/".startswith(f"{self._work_dir}/")

    def _newest(self) -> str | None:
        """Finds the checkpoint to resume from in the main process. Collective."""
        found: list[Any] = [None, None]
        if is_main_process():
            try:
                is_remote = any(not is_local(hook.out_dir or "") for hook in self._saving())
                options: dict[str, Any] = {
                    "names": self._names(),
                    "is_remote": is_remote,
                    "allow_pickle": self._allow_pickle,
                }
                newest, warnings = newest_whole(self._folders(), **options)
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


def _check_resumable(checkpoint: dict[str, Any], path: str) -> None:
    """Raises ValueError for a checkpoint that holds weights only, or another state than that of training."""
    meta = checkpoint.get("meta")
    counts = [meta.get(key) for key in ("epoch", "iter")] if isinstance(meta, dict) else []
    parts = [checkpoint.get(key) for key in ("message_hub", "state_dict")]
    if (
        not counts
        or not all(type(one) is int and one >= 0 for one in counts)
        or not all(isinstance(part, dict) for part in parts)
    ):
        raise ValueError(
            f"{path} cannot be resumed: it has no state of training (message_hub, and epoch and iter in meta). "
            "To begin a run with its weights: --cfg-options load_from=FILE, without --resume"
        )
