"""Polygons that objects are made of, in an object's own frame.

Frame of an object: x to the right, y downwards, origin near its middle, about [-1, 1] in both. All outlines are
polygons: one rasteriser serves every shape, and an affine map of the object is a map of its points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_TAU = 2.0 * math.pi


@dataclass(frozen=True)
class Part:
    """One filled outline of an object.

    Args:
        points (ndarray): (N, 2) float32, the polygon in the object's frame.
        slot (int): which of the object's colours fills it, 0 to 2. Parts of one slot share a colour.
        pattern (str): the pattern that this part usually carries, a key of ``patterns.PATTERNS``.
    """

    points: FloatArray
    slot: int
    pattern: str = "plain"


def polygon(*points: tuple[float, float]) -> FloatArray:
    """Returns the given corners as an (N, 2) float32 array."""
    return np.array(points, dtype=np.float32)


def box(cx: float, cy: float, width: float, height: float, taper: float = 0.0) -> FloatArray:
    """Returns an upright box, or a trapezoid.

    Args:
        cx (float): x of the centre, object units.
        cy (float): y of the centre, object units.
        width (float): width at the bottom.
        height (float): height.
        taper (float): share of the width that is missing at the top; negative widens it. Default 0.

    Returns:
        ndarray: (4, 2) float32.
    """
    bottom, top = width / 2.0, width * (1.0 - taper) / 2.0
    y0, y1 = cy - height / 2.0, cy + height / 2.0
    return polygon((cx - top, y0), (cx + top, y0), (cx + bottom, y1), (cx - bottom, y1))


def ellipse(
    cx: float,
    cy: float,
    rx: float,
    ry: float,
    *,
    tilt: float = 0.0,
    start: float = 0.0,
    stop: float = _TAU,
) -> FloatArray:
    """Returns an ellipse, or the part of it between two angles closed by its chord.

    Args:
        cx (float): x of the centre, object units.
        cy (float): y of the centre, object units.
        rx (float): half axis along x before tilting.
        ry (float): half axis along y before tilting.
        tilt (float): rotation of the ellipse, radians. Default 0.
        start (float): first angle, radians. Default 0.
        stop (float): last angle, radians. Default one turn.

    Returns:
        ndarray: (20, 2) float32.
    """
    whole = stop - start > _TAU - 1e-6
    angles = start + (stop - start) / (20 if whole else 19) * np.arange(20)
    x, y = rx * np.cos(angles), ry * np.sin(angles)
    cos, sin = math.cos(tilt), math.sin(tilt)
    points = np.empty((20, 2), np.float32)
    points[:, 0] = cx + cos * x - sin * y
    points[:, 1] = cy + sin * x + cos * y
    return points


def limb(
    x0: float, y0: float, x1: float, y1: float, w0: float, w1: float | None = None
) -> FloatArray:
    """Returns a straight limb between two joints.

    Args:
        x0 (float): x of the first joint, object units.
        y0 (float): y of the first joint.
        x1 (float): x of the second joint.
        y1 (float): y of the second joint.
        w0 (float): width at the first joint.
        w1 (float | None): width at the second joint. Default: as the first.

    Returns:
        ndarray: (4, 2) float32.
    """
    w1 = w0 if w1 is None else w1
    dx, dy = x1 - x0, y1 - y0
    length = max(float(np.hypot(dx, dy)), 1e-6)
    nx, ny = -dy / length / 2.0, dx / length / 2.0
    return polygon(
        (x0 + nx * w0, y0 + ny * w0),
        (x1 + nx * w1, y1 + ny * w1),
        (x1 - nx * w1, y1 - ny * w1),
        (x0 - nx * w0, y0 - ny * w0),
    )


def arch(
    cx: float, cy: float, radius: float, thickness: float, start: float, stop: float
) -> FloatArray:
    """Returns a piece of a ring.

    Args:
        cx (float): x of the centre, object units.
        cy (float): y of the centre.
        radius (float): outer radius.
        thickness (float): outer minus inner radius.
        start (float): first angle, radians.
        stop (float): last angle, radians.

    Returns:
        ndarray: (24, 2) float32.
    """
    angles = np.linspace(start, stop, 12)
    rim = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.concatenate([radius * rim, (radius - thickness) * rim[::-1]])
    return (points + np.array([cx, cy])).astype(np.float32)
