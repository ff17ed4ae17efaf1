"""Textures: families of backgrounds, and patterns on the parts of objects.

A family is a structure (an arrangement of marks). Scale, orientation, contrast, sharpness, warp and colours vary per
image over ranges that all families share, so that neither colour nor contrast nor spectrum alone identifies a family.
A pattern maps the coordinates of an object to [0, 1], the mix of a part's two colours, and therefore turns and scales
with the object.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
PatternFn = Callable[[FloatArray, FloatArray, np.random.Generator], FloatArray]
TextureFn = Callable[[FloatArray, FloatArray, float, np.random.Generator], FloatArray]


@lru_cache(maxsize=8)
def grid(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Returns pixel coordinates in units of the shorter side, centred: x and y, (H, W) float32, read-only."""
    side = min(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x - width / 2) / side, (y - height / 2) / side
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def random_colour(rng: np.random.Generator, count: int) -> FloatArray:
    """Returns (count, 3) float32 RGB colours: any lightness, mostly of low saturation, as in photographs.

    With fully random colours, two crops of an image would match by hue alone, and structure would not be learned.
    """
    return (rng.uniform(40, 215, (count, 1)) + rng.normal(0, 28, (count, 3))).astype(np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: float) -> FloatArray:
    """Returns (H, W) noise of mean 0 with ``cells`` bumps along the shorter side; its deviation is below 1."""
    side = min(height, width)
    rows, cols = int(cells * height / side) + 2, int(cells * width / side) + 2
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32, copy=False)


def _soft(value: FloatArray, gain: float = 3.0) -> FloatArray:
    # A clipped ramp instead of a step: at small sizes, the aliasing of hard steps would be an additional cue.
    return np.clip(value * gain * 0.5 + 0.5, 0.0, 1.0)


def _waves(u: FloatArray, v: FloatArray, marks: float, rng: np.random.Generator) -> FloatArray:
    bend, stretch = rng.uniform(0.8, 2.2), rng.uniform(0.5, 1.0)
    mix = np.sin(6.28 * v + bend * np.sin(6.28 * u * stretch)) + rng.uniform(-0.4, 0.4)
    return _soft(mix, rng.uniform(1.0, 4.0))


def _checks(u: FloatArray, v: FloatArray, marks: float, rng: np.random.Generator) -> FloatArray:
    return _soft(3.0 * np.sin(4.2 * u) * np.sin(4.2 * v * rng.uniform(0.75, 1.33)), rng.uniform(1.0, 4.0))


def _bricks(u: FloatArray, v: FloatArray, marks: float, rng: np.random.Generator) -> FloatArray:
    row = v * 1.3
    index = np.floor(row)
    column = u / rng.uniform(1.0, 1.7) + 0.5 * (index % 2)
    shades = rng.uniform(0.0, 0.35, (16, 16)).astype(np.float32)
    shade = shades[index.astype(np.int32) % 16, np.floor(column).astype(np.int32) % 16]
    joint = np.minimum(row % 1.0, (column % 1.0) * 1.3)
    edge = rng.uniform(0.12, 0.25)
    return np.clip((joint - edge) * rng.uniform(6, 12), 0.0, 1.0) * (1.0 - shade)


def _blobs(u: FloatArray, v: FloatArray, marks: float, rng: np.random.Generator) -> FloatArray:
    height, width = u.shape
    mix = 2.0 * smooth_noise(rng, height, width, marks * 1.2) + rng.uniform(-0.5, 0.5)
    return _soft(mix, rng.uniform(1.0, 4.0))


def _cells(u: FloatArray, v: FloatArray, marks: float, rng: np.random.Generator) -> FloatArray:
    height, width = u.shape
    step = max(min(height, width) / marks, 4.0)
    rows, cols = int(height / step) + 2, int(width / step) + 2
    y = (np.arange(rows)[:, None] + rng.uniform(-0.4, 0.4, (rows, cols))) * step
    x = (np.arange(cols)[None, :] + rng.uniform(-0.4, 0.4, (rows, cols))) * step
    seeds = np.full((height, width), 255, np.uint8)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    seeds[y[inside].astype(int), x[inside].astype(int)] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = rng.uniform(0.35, 1.0, int(labels.max()) + 1).astype(np.float32)
    same = np.ones((height, width), np.float32)
    same[:, 1:] *= labels[:, 1:] == labels[:, :-1]
    same[1:] *= labels[1:] == labels[:-1]
    joint = max(1, round(step * 0.08))
    eroded = cv2.erode(same, np.ones((joint, joint), np.uint8))
    return cv2.blur(shades[labels] * eroded, (3, 3))


def _fibres(u: FloatArray, v: FloatArray, marks: float, rng: np.random.Generator) -> FloatArray:
    # Noise in stretched coordinates gives strands along u with ends and knots.
    table = rng.standard_normal((64, 64), dtype=np.float32)
    x, y = (u * rng.uniform(0.3, 0.5) + 1000.0) % 62.0, (v * 2.4 + 1000.0) % 62.0
    strands = cv2.remap(table, x, y, cv2.INTER_LINEAR)
    return _soft(1.6 * strands, rng.uniform(1.0, 4.0))


#: Family name to a function of (u, v, marks, rng): (H, W) float32 coordinates in units of a mark, and the number of
#: marks along the shorter side; the function returns (H, W) float32 in [0, 1].
FAMILIES: dict[str, TextureFn] = {
    "waves": _waves,
    "checks": _checks,
    "bricks": _bricks,
    "blobs": _blobs,
    "cells": _cells,
    "fibres": _fibres,
}


def draw_background(rng: np.random.Generator, height: int, width: int, family: str) -> FloatArray:
    """Returns a background of a family: (3, H, W) RGB in about [0, 255]; channels first for long inner loops."""
    x, y = grid(height, width)
    marks = float(np.exp(rng.uniform(np.log(5.0), np.log(8.5))))
    # Roughly level, as in upright photographs.
    angle = rng.uniform(-0.5, 0.5)
    cos, sin = marks * math.cos(angle), marks * math.sin(angle)
    bend = rng.uniform(0.0, 0.35)
    u = cos * x + sin * y + bend * smooth_noise(rng, height, width, 2)
    v = cos * y - sin * x + bend * smooth_noise(rng, height, width, 2)
    mix = FAMILIES[family](u, v, marks, rng)
    # Noise that all families share: broad stains and fine grain of random strength.
    mix = mix + rng.uniform(0.0, 0.25) * smooth_noise(rng, height, width, 3)
    mix += rng.uniform(0.0, 0.15) * smooth_noise(rng, height, width, rng.uniform(10, 30))
    low = random_colour(rng, 1)[0]
    # Towards mid-grey, so that clipping does not flatten the marks.
    step = rng.uniform(50, 95) * (-1.0 if low.mean() > 128 else 1.0) + rng.normal(0, 14, 3)
    return low[:, None, None] + mix * step.astype(np.float32)[:, None, None]


def _dots(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    phase = rng.uniform(0, 6)
    return _soft(np.sin(u * 16.0 + phase) + np.sin(v * 16.0 - phase) - 0.8, 2.0)


def _brickwork(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    row = v * 4.0 + rng.uniform(0, 1)
    column = u * 2.2 + 0.5 * (np.floor(row) % 2)
    joint = np.minimum((row % 1.0) * 0.6, column % 1.0)
    return np.clip((0.22 - joint) * 8.0, 0.0, 1.0)


def _speckle(u: FloatArray, v: FloatArray, rng: np.random.Generator) -> FloatArray:
    a, b, c = rng.uniform(0, 6, 3)
    return _soft(np.sin(u * 19.0 + a + 2.0 * np.sin(v * 7.0 + b)) * np.sin(v * 17.0 + c + 2.0 * np.sin(u * 8.0)))


#: Pattern name to a function of (u, v, rng), with u and v (H, W) float32 in object units; it returns (H, W) in [0, 1].
PATTERNS: dict[str, PatternFn] = {
    "stripes": lambda u, v, rng: _soft(np.sin((u + 0.2 * v) * 17.0 + rng.uniform(0, 6))),
    "planks": lambda u, v, rng: _soft(np.sin(v * 19.0 + rng.uniform(0, 6)) - 0.4),
    "bark": lambda u, v, rng: _soft(np.sin(v * 15.0 + 3.0 * np.sin(u * 9.0 + rng.uniform(0, 6)))),
    "dots": _dots,
    "checks": lambda u, v, rng: _soft(np.sin(u * 14.0 + rng.uniform(0, 6)) * np.sin(v * 14.0), 4.0),
    "hatch": lambda u, v, rng: _soft(np.sin((u + v) * 14.0 + rng.uniform(0, 6))),
    "scales": lambda u, v, rng: _soft(np.sin(u * 12.0 + rng.uniform(0, 6) + 1.6 * np.abs(np.sin(v * 8.0)))),
    "brickwork": _brickwork,
    "rings": lambda u, v, rng: _soft(np.sin(np.hypot(u - u.mean(), v - v.mean()) * 24.0 + rng.uniform(0, 6))),
    "speckle": _speckle,
}

PATTERN_NAMES: tuple[str, ...] = ("plain", *PATTERNS)
