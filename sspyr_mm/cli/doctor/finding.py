"""Findings of the checks of ``python -m sspyr_mm doctor``."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"
SETUP = "bash tools/setup_env.sh"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Args:
        name (str): Subject of the check.
        level (str): 'ok'; 'note': pre-training runs, but something else may not; 'problem': pre-training
            can't run.
        found (str): State that the check found.
        remedy (str): Remedy; empty if none is needed. Defaults to ''.
    """

    name: str
    level: str
    found: str
    remedy: str = ""


def last_line(text: str) -> str:
    """Returns the last line of an error message.

    Args:
        text (str): Any text.

    Returns:
        str: The last line that is not empty; '' without one.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
