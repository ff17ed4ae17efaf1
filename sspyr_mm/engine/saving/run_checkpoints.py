"""The checkpoints of a run in its work dir: which is the newest whole one, and which are of an earlier run."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from sspyr_mm.files import shortened
from sspyr_mm.tensor_files import check_whole, peek_checkpoint

POINTER = "last_checkpoint"
"""File in which mmengine notes the path of the last checkpoint."""


@dataclass(frozen=True)
class RunCheckpoint:
    """A file that mmengine's Runner has saved."""

    path: Path
    iteration: int
    resumable: bool  # whether it holds the optimizer: the best by a metric does not


def is_local(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder is on a disk, rather than in an object store."""
    return "://" not in os.fspath(folder)


def run_checkpoints(
    folder: str | os.PathLike[str], *, allow_pickle: bool = False
) -> tuple[list[RunCheckpoint], dict[Path, str]]:
    """Returns the checkpoints of training in a folder, newest first, and the files that cannot be read with the reason.

    Files of other kinds, such as exported backbones, are ignored.
    """
    found, damaged = [], {}
    for path in sorted(Path(folder).resolve().glob("*.pth")):
        try:
            held = peek_checkpoint(path, allow_pickle=allow_pickle)
        except ValueError as error:
            damaged[path] = str(error)
            continue
        iteration = (held.get("meta") or {}).get("iter")
        if "message_hub" in held and isinstance(iteration, int):
            found.append(RunCheckpoint(path, iteration, "optimizer" in held))
    return sorted(found, key=lambda one: (one.iteration, one.path.stat().st_mtime), reverse=True), damaged


def newest_whole(work_dir: str | os.PathLike[str], *, allow_pickle: bool = False) -> tuple[str | None, list[str]]:
    """Returns the checkpoint to resume from, None if the work dir has none, and warnings to log.

    ``last_checkpoint`` may be missing, empty or name a folder that was moved or copied. It counts only where the work
    dir itself has no checkpoint, because they are saved elsewhere.

    Raises:
        ValueError: If every checkpoint is damaged: training must not silently begin anew.
    """
    pointer = _pointer(work_dir)
    if pointer and not is_local(pointer):
        return pointer, []
    found, damaged = run_checkpoints(work_dir, allow_pickle=allow_pickle)
    if not found and not damaged and os.path.dirname(pointer):
        found, damaged = run_checkpoints(os.path.dirname(pointer), allow_pickle=allow_pickle)
    warnings = []
    for one in (one for one in found if one.resumable):
        try:
            check_whole(one.path)
        except ValueError as error:
            damaged[one.path] = str(error)
            continue
        warnings += [f"{fault}. It is passed over: training resumes from {one.path}" for fault in damaged.values()]
        return str(one.path), warnings
    if damaged:
        raise ValueError(
            f"--resume: {work_dir} has no checkpoint that can be read: {shortened(damaged.values(), 3)}. Restore one "
            "from a copy, or remove these files to begin anew"
        )
    if pointer:
        warnings.append(f"{Path(work_dir, POINTER)} names {pointer}, which does not exist: training begins anew")
    return None, warnings


def set_aside(work_dir: str | os.PathLike[str], after: int) -> Path | None:
    """Moves the checkpoints that follow an iteration to a new folder in the work dir, and returns it.

    They are of an earlier run, whose files would mix with those of the run that continues from that iteration.
    Returns None if there are none.
    """
    found, damaged = run_checkpoints(work_dir)
    later = [one.path for one in found if one.iteration > after] + ([] if after else list(damaged))
    if not later:
        return None
    numbers = (Path(work_dir, f"earlier_{number}") for number in itertools.count(1))
    target = next(folder for folder in numbers if not folder.exists())
    target.mkdir()
    if os.path.basename(_pointer(work_dir)) in {path.name for path in later}:
        Path(work_dir, POINTER).unlink()
    for path in later:
        path.replace(target / path.name)
    return target


def _pointer(work_dir: str | os.PathLike[str]) -> str:
    try:
        return Path(work_dir, POINTER).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
