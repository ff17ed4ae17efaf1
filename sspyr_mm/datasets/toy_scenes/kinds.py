"""Object classes, kinds of scenes, and which classes occur in which kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sspyr_mm.datasets.toy_scenes import objects_built as built
from sspyr_mm.datasets.toy_scenes import objects_grown as grown
from sspyr_mm.datasets.toy_scenes.sprites import Part


@dataclass(frozen=True)
class ObjectClass:
    """A class of objects.

    Args:
        name: Category name in the annotations.
        build: Function that draws one object from a random generator; returns its parts, back to front.
        stretch: Factor on the drawn size that equalises the areas of the classes, so that area does not reveal the
            class (a chair is mostly gaps, a house is not).
        turn: Largest rotation to either side, in radians.
    """

    name: str
    build: Callable[[np.random.Generator], list[Part]]
    stretch: float
    turn: float


OBJECT_CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass("tree", grown.tree, 1.1, 0.25),
    ObjectClass("flower", grown.flower, 1.06, 0.3),
    ObjectClass("fish", grown.fish, 1.03, 0.35),
    ObjectClass("bird", grown.bird, 1.02, 0.3),
    ObjectClass("beetle", grown.beetle, 0.95, 0.4),
    ObjectClass("figure", grown.figure, 1.13, 0.25),
    ObjectClass("house", built.house, 0.79, 0.2),
    ObjectClass("cart", built.cart, 1.0, 0.25),
    ObjectClass("boat", built.boat, 0.98, 0.25),
    ObjectClass("chair", built.chair, 1.04, 0.25),
    ObjectClass("lamp", built.lamp, 1.28, 0.25),
    ObjectClass("mug", built.mug, 0.95, 0.3),
)

CLASSES: tuple[str, ...] = tuple(item.name for item in OBJECT_CLASSES)


@dataclass(frozen=True)
class Kind:
    """A kind of scene.

    Args:
        name: Name of the kind.
        family: Background texture family, a key of ``textures.FAMILIES``.
        common: Classes that are frequent in this kind.
    """

    name: str
    family: str
    common: tuple[str, ...]

    def weights(self) -> np.ndarray:
        """Returns the (num_classes,) float64 probabilities of the classes in this kind; all are positive."""
        raw = np.array([COMMON_WEIGHT if name in self.common else 1.0 for name in CLASSES])
        return raw / raw.sum()


#: Factor by which a common class is more likely than any other class.
COMMON_WEIGHT = 12.0

# Every class is common in exactly two kinds, and no two kinds share more than two classes: all class priors are
# equal, and no class identifies its kind.
KINDS: tuple[Kind, ...] = (
    Kind("meadow", "blobs", ("tree", "flower", "bird", "beetle")),
    Kind("street", "bricks", ("house", "cart", "figure", "tree")),
    Kind("shore", "waves", ("boat", "fish", "bird", "house")),
    Kind("hall", "checks", ("chair", "lamp", "figure", "mug")),
    Kind("pond", "cells", ("fish", "beetle", "boat", "lamp")),
    Kind("shed", "fibres", ("cart", "mug", "chair", "flower")),
)
