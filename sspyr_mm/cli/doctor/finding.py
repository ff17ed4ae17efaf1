"""What the checks of ``python -m sspyr_mm doctor`` give."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"
SETUP = "bash tools/setup_env.sh"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        name (str): What was looked at.
        level (str): 'ok'; 'note': pre-training runs, something else may not; 'problem': pre-training
            can't run.
        found (str): What is there.
        remedy (str): How to mend it; empty when there is nothing to mend. Defaults to ''.
    """

    name: str
    level: str
    found: str
    remedy: str = ""


def last_line(text: str) -> str:
    """What an error says in the end.

    Args:
        text (str): Any text.

    Returns:
        str: Its last line that is not empty; empty without one.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
