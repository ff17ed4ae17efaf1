"""Object classes, kinds of scenes, and which classes occur in which kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sspyr_mm.datasets.toy_scenes import objects
from sspyr_mm.datasets.toy_scenes.sprites import Part


@dataclass(frozen=True)
class ObjectClass:
    """Class of objects, with its category name and the function that draws one of them."""

    name: str
    build: Callable[[np.random.Generator], Iterator[Part]]
    #: Factor on the size that equalises the areas of the classes (a chair is mostly gaps, a house is not), so that
    #: area does not reveal the class.
    stretch: float
    #: Largest rotation to either side, in radians.
    turn: float


OBJECT_CLASSES: tuple[ObjectClass, ...] = (
    ObjectClass("tree", objects.tree, 1.1, 0.25),
    ObjectClass("flower", objects.flower, 1.06, 0.3),
    ObjectClass("fish", objects.fish, 1.03, 0.35),
    ObjectClass("bird", objects.bird, 1.02, 0.3),
    ObjectClass("beetle", objects.beetle, 0.95, 0.4),
    ObjectClass("figure", objects.figure, 1.13, 0.25),
    ObjectClass("house", objects.house, 0.79, 0.2),
    ObjectClass("cart", objects.cart, 1.0, 0.25),
    ObjectClass("boat", objects.boat, 0.98, 0.25),
    ObjectClass("chair", objects.chair, 1.04, 0.25),
    ObjectClass("lamp", objects.lamp, 1.28, 0.25),
    ObjectClass("mug", objects.mug, 0.95, 0.3),
)

CLASSES: tuple[str, ...] = tuple(item.name for item in OBJECT_CLASSES)

# Factor by which a common class is more likely than any other class.
_COMMON_WEIGHT = 12.0


@dataclass(frozen=True)
class Kind:
    """Kind of scene.

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
        raw = np.array([_COMMON_WEIGHT if name in self.common else 1.0 for name in CLASSES])
        return raw / raw.sum()


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
