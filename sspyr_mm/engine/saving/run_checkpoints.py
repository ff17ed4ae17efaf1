"""The checkpoints of a run in its work dir: which is the newest whole one, and which are of an earlier run."""

import itertools
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sspyr_mm.files import shortened
from sspyr_mm.tensor_files import check_whole, peek_checkpoint

POINTER = "last_checkpoint"
"""File in which mmengine notes the path of the last checkpoint."""
_USUAL = (r"((best_.*)?(epoch|iter)_\d+|interrupted)\.pth",)
_NUMBER = re.compile(r"\\\{.*?\\\}")
"""Number in the template of a file name, after ``re.escape``."""


@dataclass(frozen=True)
class RunCheckpoint:
    """A file that mmengine's Runner has saved, or one of the same name."""

    path: Path
    iteration: int  # the largest number for files without a state of training, which follow any other
    resumable: bool  # the best by a metric is not


def is_local(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder is on a disk, rather than in an object store."""
    return "://" not in os.fspath(folder)


def name_patterns(template: str) -> tuple[str, str]:
    """Returns regular expressions for the names of checkpoints and of the best ones by a template: ``ckpt_{}.pt``."""
    name = _NUMBER.sub(r"\\d+", re.escape(template))
    return name, f"best_.*{name}"


def run_checkpoints(
    folder: str | os.PathLike[str], *, names: Sequence[str] = (), allow_pickle: bool = False
) -> tuple[list[RunCheckpoint], dict[Path, str]]:
    """Returns the checkpoints of training in a folder, newest first, and the files that cannot be read with the reason.

    Files of other kinds, such as exported backbones, are ignored unless they have the name of a checkpoint. ``names``
    are regular expressions for names other than mmengine's usual ones; the file that ``last_checkpoint`` names is
    considered as well.
    """
    found, damaged = [], {}
    own = re.compile("|".join([*_USUAL, *names, re.escape(os.path.basename(_pointer(folder)) or "/")]))
    files = (path for path in Path(folder).resolve().iterdir() if path.suffix == ".pth" or own.fullmatch(path.name))
    for path in sorted(path for path in files if path.is_file()):
        try:
            held = peek_checkpoint(path, allow_pickle=allow_pickle)
        except (OSError, ValueError) as error:
            if own.fullmatch(path.name):
                damaged[path] = str(error)
            continue
        meta = held.get("meta")
        iteration = meta.get("iter") if isinstance(meta, dict) else None
        if "message_hub" in held and isinstance(iteration, int):
            found.append(RunCheckpoint(path, iteration, not path.name.startswith("best_")))
        elif own.fullmatch(path.name):  # of another program, under a name that this run may give to its own
            found.append(RunCheckpoint(path, sys.maxsize, resumable=False))
    return sorted(found, key=lambda one: (one.iteration, one.path.stat().st_mtime), reverse=True), damaged


def newest_whole(
    folders: Sequence[str | os.PathLike[str]],
    *,
    names: Sequence[str] = (),
    is_remote: bool = False,
    allow_pickle: bool = False,
) -> tuple[str | None, list[str]]:
    """Returns the checkpoint to resume from, or None, and warnings to log.

    Args:
        folders: Work dir, and folders on the disk in which the run also saves checkpoints. The work dir's
            ``last_checkpoint`` counts only with ``is_remote``: it may be missing, empty or name a folder that was moved
            or copied.
        names: See :func:`run_checkpoints`.
        is_remote: Whether the run saves checkpoints in an object store.
        allow_pickle: See :func:`read_checkpoint`.

    Raises:
        ValueError: If every checkpoint is damaged: training must not silently begin anew.
    """
    pointer = _pointer(folders[0])
    if is_remote and pointer and not is_local(pointer):
        return pointer, []
    found, damaged = _in_all(folders, names, allow_pickle)
    warnings = []
    for one in (one for one in found if one.resumable):
        try:
            check_whole(one.path)
        except (OSError, ValueError) as error:
            damaged[one.path] = str(error)
            continue
        warnings += [f"{fault}. It is passed over: training resumes from {one.path}" for fault in damaged.values()]
        return str(one.path), warnings
    if damaged:
        raise ValueError(
            f"--resume: {folders[0]} has no checkpoint that can be read: {shortened(damaged.values(), 3)}. Restore one "
            "from a copy, or remove these files to begin anew"
        )
    if earlier := sorted(path for path in Path(folders[0]).glob("earlier_*/*") if path.is_file()):
        warnings.append(
            f"{folders[0]} has no checkpoint to resume from: training begins anew. To continue an earlier run instead: "
            f"--resume {shortened(earlier, 3)}"
        )
    elif pointer and not os.path.exists(pointer):
        warnings.append(f"{Path(folders[0], POINTER)} names {pointer}, which does not exist: training begins anew")
    return None, warnings


def set_aside(
    folders: Sequence[str | os.PathLike[str]],
    *,
    after: int,
    names: Sequence[str] = (),
    keep: str | None = None,
    allow_pickle: bool = False,
) -> list[Path]:
    """Moves the checkpoints that follow an iteration to a new folder next to them, and returns the new folders.

    They are of an earlier run, whose files would mix with those of the run that continues from that iteration.

    Args:
        folders: As of :func:`newest_whole`.
        after: Iteration; damaged files are moved if it is 0 or less.
        names: See :func:`run_checkpoints`.
        keep: Path of a file that stays.
        allow_pickle: See :func:`read_checkpoint`.
    """
    targets = []
    for folder in filter(os.path.isdir, folders):
        found, damaged = run_checkpoints(folder, names=names, allow_pickle=allow_pickle)
        later = [one.path for one in found if one.iteration > after] + ([] if after > 0 else list(damaged))
        later = [path for path in later if keep is None or path != Path(keep).resolve()]
        if not later:
            continue
        numbers = (Path(folder, f"earlier_{number}") for number in itertools.count(1))
        target = next(one for one in numbers if not one.exists())
        target.mkdir()
        if os.path.basename(_pointer(folders[0])) in {path.name for path in later}:
            Path(folders[0], POINTER).unlink(missing_ok=True)
        for path in later:
            path.replace(target / path.name)
        targets.append(target)
    return targets


def _in_all(
    folders: Sequence[str | os.PathLike[str]], names: Sequence[str], allow_pickle: bool
) -> tuple[list[RunCheckpoint], dict[Path, str]]:
    found: list[RunCheckpoint] = []
    damaged: dict[Path, str] = {}
    for folder in filter(os.path.isdir, folders):
        some, faults = run_checkpoints(folder, names=names, allow_pickle=allow_pickle)
        found += some
        damaged |= faults
    return sorted(found, key=lambda one: one.iteration, reverse=True), damaged


def _pointer(work_dir: str | os.PathLike[str]) -> str:
    try:
        return Path(work_dir, POINTER).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
