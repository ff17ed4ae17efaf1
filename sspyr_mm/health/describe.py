"""Text of measures and verdicts, for the log and the command line."""

from collections.abc import Mapping

HEALTH_FILE = "health.json"
"""File in the work dir with the last table."""
_SHOWN = {
    "samples": "{samples:.0f} patches",
    "ratio": "loss ratio {ratio:.3f}",
    "used": "{used:.0f} of {prototypes:.0f} prototypes in codes",
    "entropy": "code entropy {entropy:.2f}",
    "deviation": "deviation {deviation:.2f}",
    "rank": "rank {rank:.1f}",
    "alignment": "alignment {alignment:.2f}",
    "position": "position {position:.2f}",
    "position_share": "position {position_share:.2f}",
    "queue": "queue {queue:.0%}",
    "contrast": "contrast {contrast:.2f}",
    "image_rank": "images: rank {image_rank:.1f}",
    "image_deviation": "deviation {image_deviation:.2f}",
    "cell_rank": "cells: rank {cell_rank:.1f}",
    "cell_deviation": "deviation {cell_deviation:.2f}",
    "gradient_norm": "gradient norm {gradient_norm:.3g}",
    "lr": "learning rate {lr:.3g}",
    "images_per_s": "{images_per_s:.0f} images/s",
    "data_wait": "waits for data {data_wait:.0f} %",
}
"""Formats of the measures in the log, in their order."""


def describe(values: Mapping[str, float]) -> str:
    """Formats measures in one line; with ``used``, ``prototypes`` is K."""
    return ", ".join(text.format(**values) for name, text in _SHOWN.items() if name in values)


def format_table(lines: Mapping[str, Mapping[str, float]], verdicts: Mapping[str, str]) -> list[str]:
    """Formats a line per group: name, verdict, measures."""
    name_width, width = max(map(len, lines)), max(map(len, verdicts.values()))
    return [
        f"  {line:{name_width}}  {verdicts[line]:{width}}  {describe(values)}".rstrip()
        for line, values in lines.items()
    ]
