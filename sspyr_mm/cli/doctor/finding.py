"""Findings of the checks of ``python -m sspyr_mm doctor``."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"
"""Levels. With a note, pre-training runs, but something else may not; with a problem, it can't run."""
SETUP = "bash tools/setup_env.sh"


@dataclass(frozen=True)
class Finding:
    """Result of one check; ``remedy`` is empty if none is needed."""

    name: str
    level: str
    found: str
    remedy: str = ""


def last_line(text: object) -> str:
    """Returns the last line that is not empty of an error message; '' without one."""
    return str(text).strip().rpartition("\n")[2].strip()
