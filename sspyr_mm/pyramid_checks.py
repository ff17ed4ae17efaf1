"""Checks of the numbers of a pyramid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sspyr_mm.pyramid import ScaleSpec


def check_scale(s: ScaleSpec) -> None:
    """Raises ValueError if the geometry or a number of a scale is impossible."""
    where = f"pyramid.{s.name}"
    for field in ("grid", "region", "patch"):
        _check_count(f"{where}.{field}", getattr(s, field))
    remedy = ", or leave the scale out by setting it to None"
    _check_count(f"{where}.num_prototypes", s.num_prototypes, remedy=remedy)
    if s.patch > s.cell:
        raise ValueError(
            f"{where}: a patch of {s.patch} px does not fit its cell of {s.cell} px "
            f"(region {s.region} // grid {s.grid}): set region >= {s.patch * s.grid} or patch <= {s.cell}"
        )
    _check_range(f"{where}.area", s.area, upper=1.0)
    _check_range(f"{where}.aspect", s.aspect)
    for field in ("alpha", "beta"):
        value = getattr(s, field)
        if not _is_number(value) or value < 0:
            raise ValueError(f"{where}.{field} must be one number >= 0, got {value!r}")
    if s.scale_idx == 0 and s.beta:
        raise ValueError(f"{where}.beta must be 0, got {s.beta}: scale 0 is the target of the cross-scale terms")
    if not isinstance(s.shared_region, bool):
        raise ValueError(f"{where}.shared_region must be True or False, got {s.shared_region!r}")
    _check_count(f"{where}.queue_length", s.queue_length, least=0)
    if s.multi_crop is not None:
        _check_multi_crop(where, s)


def _check_multi_crop(where: str, s: ScaleSpec) -> None:
    crops = s.multi_crop
    assert crops is not None
    if s.scale_idx != 0:
        raise ValueError(f"{where}.multi_crop: extra crops belong to s0, the only scale without a grid; remove it")
    for field in ("num_views", "patch"):
        _check_count(f"{where}.multi_crop.{field}", getattr(crops, field))
    _check_range(f"{where}.multi_crop.area", crops.area, upper=1.0)


def _check_count(where: str, value: Any, *, least: int = 1, remedy: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where} must be an integer >= {least}, got {value!r}{remedy}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_range(where: str, value: Any, *, upper: float = float("inf")) -> None:
    pair = isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value))
    if not (pair and 0 < value[0] <= value[1] <= upper):
        bound = f" <= {upper:g}" if upper != float("inf") else ""
        raise ValueError(f"{where} must be (low, high) with 0 < low <= high{bound}, got {value!r}")
