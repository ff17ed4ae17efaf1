"""mmengine's CheckpointHook for disks that fill up."""

import copy
import errno
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from sspyr_mm.engine.hooks.model_access import unwrapped
from sspyr_mm.engine.saving.run_checkpoints import is_local
from sspyr_mm.files import partial_path


class UnwritableError(OSError):
    """A folder cannot be written or is full; the message gives the remedy."""


@HOOKS.register_module()
class KeepingCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that removes an older checkpoint only once the new one is complete.

    Before the first step it tests whether the folder can be written and has room for a checkpoint. A checkpoint that
    cannot be written later, as on a full disk, is reported; training continues, and the next one is due as usual.

    Args:
        stop_on_error: Whether training stops when a checkpoint cannot be written.
        **kwargs: Arguments of mmengine's ``CheckpointHook``.

    Raises:
        ValueError: If ``filename_tmpl`` has a folder, or begins like the best checkpoint by a metric.
        UnwritableError: Before training if the folder cannot be written or is full, and later with ``stop_on_error``.
    """

    def __init__(self, *args: Any, stop_on_error: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stop_on_error = stop_on_error
        name = self.filename_tmpl
        if name and (name.startswith("best_") or os.path.basename(name) != name or "/" in name):
            raise ValueError(
                f"filename_tmpl must be a file name without a folder, and must not begin with best_, as the best "
                f"checkpoint by a metric does; got {name!r}. out_dir sets the folder"
            )

    def before_train(self, runner: Runner) -> None:
        """Tests the folder."""
        infos = runner.message_hub.runtime_info
        if "keep_ckpt_ids" in infos:  # from a file: they become names of files to remove
            given = infos["keep_ckpt_ids"]
            infos["keep_ckpt_ids"] = [i for i in given if type(i) is int] if isinstance(given, list) else []
        super().before_train(runner)
        if not is_local(self.out_dir):
            return
        # The message hub of a moved or copied run names the best checkpoints of the other folder.
        if best := getattr(self, "best_ckpt_path", None):
            self.best_ckpt_path = self._here(best)
        for key, best in getattr(self, "best_ckpt_path_dict", {}).items():
            self.best_ckpt_path_dict[key] = self._here(best) if best else None
        if is_main_process():
            _try_to_write(Path(self.out_dir), _smallest_size(runner))

    def _here(self, path: Any) -> str | None:
        """Returns the path of a best checkpoint in this folder, or None: the next one replaces it."""
        name = os.path.basename(path) if isinstance(path, str) else ""
        here = os.path.join(self.out_dir, name)
        return here if name.startswith("best_") and os.path.isfile(here) else None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._kept_until_whole(runner):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._kept_until_whole(runner):
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _kept_until_whole(self, runner: Runner) -> Iterator[None]:
        """Delays the removal of files to the end of the block; if it fails to write, nothing has changed."""
        outdated: list[str] = []
        before = {
            name: copy.copy(value) if isinstance(value, (deque, dict)) else value for name, value in vars(self).items()
        }
        infos = dict(runner.message_hub.runtime_info)
        try:
            with patch.object(self.file_backend, "remove", outdated.append):
                yield
        except OSError as error:
            self.__dict__.update(before)
            runner.message_hub.runtime_info.clear()
            runner.message_hub.runtime_info.update(infos)
            last = infos.get("last_ckpt")
            message = (
                f"A checkpoint could not be written: {error}. The last one is {last or 'none: this was the first'}"
            )
            if self.stop_on_error:
                raise UnwritableError(error.errno, message) from error
            runner.logger.error(f"{message}. Training continues; the next checkpoint is due as usual")
        else:
            best = getattr(self, "best_ckpt_path_dict", {}).values()
            current = {self.last_ckpt, getattr(self, "best_ckpt_path", None), *best}
            for path in (path for path in outdated if path not in current):  # a file name may have no number
                try:
                    self.file_backend.remove(path)
                except OSError as error:
                    runner.logger.warning(f"The outdated checkpoint {path} could not be removed: {error}")


def _smallest_size(runner: Runner) -> int:
    """Returns the smallest number of bytes of a checkpoint: the model and one value per parameter in the optimizer."""
    model = unwrapped(runner)
    tensors: list[Tensor] = [*model.parameters(), *model.buffers(), *model.parameters()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _try_to_write(folder: Path, size: int) -> None:
    """Reserves room for a file and releases it; raises OSError with the remedy."""
    trial = partial_path(folder / "trial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(trial, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # this disk cannot reserve room
            return
        raise UnwritableError(
            error.errno,
            f"No checkpoint of {size / 2**20:.0f} MB can be written to {folder} ({error.strerror}): free space, or "
            "give another --work-dir",
        ) from error
    finally:
        trial.unlink(missing_ok=True)
