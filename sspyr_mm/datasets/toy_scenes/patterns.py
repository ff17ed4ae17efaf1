"""Patterns on the parts of objects: maps from object coordinates to [0, 1], the mix of a part's two colours.

They are functions of the object's own coordinates, so that they turn and scale with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sspyr_mm.datasets.toy_scenes.geometry import FloatArray

PatternFn = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]


def _soft(value: FloatArray, gain: float = 3.0) -> FloatArray:
    # A clipped ramp instead of a step: aliasing of hard steps would be a cue of its own at small sizes.
    return np.clip(value * gain * 0.5 + 0.5, 0.0, 1.0)


def _stripes(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _soft(np.sin((u + 0.2 * v) * 17.0 + rng.uniform(0, 6)))


def _planks(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _soft(np.sin(v * 19.0 + rng.uniform(0, 6)) - 0.4)


def _bark(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _soft(np.sin(v * 15.0 + 3.0 * np.sin(u * 9.0 + rng.uniform(0, 6))))


def _dots(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    phase = rng.uniform(0, 6)
    return _soft(np.sin(u * 16.0 + phase) + np.sin(v * 16.0 - phase) - 0.8, 2.0)


def _checks(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _soft(np.sin(u * 14.0 + rng.uniform(0, 6)) * np.sin(v * 14.0), 4.0)


def _hatch(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    return _soft(np.sin((u + v) * 14.0 + rng.uniform(0, 6)))


def _scales(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    phase = rng.uniform(0, 6)
    return _soft(np.sin(u * 12.0 + phase + 1.6 * np.abs(np.sin(v * 8.0))))


def _brickwork(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    row = v * 4.0 + rng.uniform(0, 1)
    column = u * 2.2 + 0.5 * (np.floor(row) % 2)
    joint = np.minimum((row % 1.0) * 0.6, column % 1.0)
    return np.clip((0.22 - joint) * 8.0, 0.0, 1.0)


def _rings(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    cu, cv = u.mean(), v.mean()
    return _soft(np.sin(np.hypot(u - cu, v - cv) * 24.0 + rng.uniform(0, 6)))


def _speckle(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    a, b, c = rng.uniform(0, 6, 3)
    return _soft(
        np.sin(u * 19.0 + a + 2.0 * np.sin(v * 7.0 + b))
        * np.sin(v * 17.0 + c + 2.0 * np.sin(u * 8.0))
    )


#: Pattern name to a function of (u, v, rng), each (H, W) float32 in object units, giving (H, W) in [0, 1].
PATTERNS: dict[str, PatternFn] = {
    "stripes": _stripes,
    "planks": _planks,
    "bark": _bark,
    "dots": _dots,
    "checks": _checks,
    "hatch": _hatch,
    "scales": _scales,
    "brickwork": _brickwork,
    "rings": _rings,
    "speckle": _speckle,
}

PATTERN_NAMES: tuple[str, ...] = ("plain", *PATTERNS)
