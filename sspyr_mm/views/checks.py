"""Checks of the numbers in a config of views or scales."""

import math
from collections.abc import Collection, Mapping
from typing import Any


def tuples(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Converts lists, as in a dumped and reloaded config, to tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in cfg.items()}


def check_keys(where: str, cfg: Mapping[str, Any], allowed: Collection[str], required: Collection[str] = ()) -> None:
    """Raises ValueError for unknown or missing fields of a group or scale."""
    if unknown := sorted(set(cfg) - set(allowed)):
        raise ValueError(f"{where} has unknown fields {unknown}: allowed are {sorted(allowed)}")
    if missing := sorted(set(required) - set(cfg)):
        grid = cfg.get("grid", 1)
        patch = 224 // grid if type(grid) is int and 0 < grid <= 224 else 224
        raise ValueError(
            f"{where} lacks {missing}: add them, e.g. {where}=dict(region=224, patch={patch}, ...); a patch is at most "
            "region // grid"
        )


def check_count(where: str, value: Any, *, least: int = 1, remedy: str = "") -> None:
    """Raises ValueError if a value is not an integer of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where} must be an integer >= {least}, got {value!r}{remedy}")


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number, not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_range(where: str, value: Any, *, upper: float = math.inf) -> None:
    """Raises ValueError if a value is not (low, high) with 0 < low <= high <= upper."""
    pair = isinstance(value, tuple) and len(value) == 2 and all(map(is_number, value))
    if not (pair and 0 < value[0] <= value[1] <= upper):
        bound = f" <= {upper:g}" if upper != math.inf else ""
        raise ValueError(f"{where} must be (low, high) with 0 < low <= high{bound}, got {value!r}")


def check_geometry(where: str, spec: Any) -> None:
    """Raises ValueError if the regions, cells and patches of a group or scale are impossible."""
    for field in ("grid", "region", "patch"):
        check_count(f"{where}.{field}", getattr(spec, field))
    if spec.patch > spec.cell:
        raise ValueError(
            f"{where}: a patch of {spec.patch} px does not fit its cell of {spec.cell} px "
            f"(region {spec.region} // grid {spec.grid}): set region >= {spec.patch * spec.grid} or "
            f"patch <= {spec.cell}"
        )
    check_range(f"{where}.area", spec.area, upper=1.0)
    check_range(f"{where}.aspect", spec.aspect)
