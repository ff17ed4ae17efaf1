"""Specification of views, shared by transform, preprocessor and model.

A config of a method without a pyramid holds one dict, ``model.views``, with one entry per group::

    views = dict(
        main=dict(
            num_views=2, region=224, patch=224, area=(0.08, 1.0),
            augment=[dict(blur_prob=1.0), dict(blur_prob=0.1, solarize_prob=0.2)],
        ),
    )

A *group* is the input of one backbone pass: all views and patches of one size. The views of SS-PRL follow from its
pyramid: see :mod:`sspyr_mm.pyramid`, which also defines the terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sspyr_mm.views.checks import check_count, check_geometry, check_keys, check_range, is_number, tuples

NUM_VIEWS = 2
"""Views of an image, unless a group states another number."""


class Gridded:
    """Properties derived from a region and its grid."""

    grid: int
    region: int

    @property
    def num_patches(self) -> int:
        """M, patches of one view of one image."""
        return self.grid**2

    @property
    def cell(self) -> int:
        """Side of a cell in pixels; pixels of the region beyond ``grid * cell`` are not used."""
        return self.region // self.grid


@dataclass(frozen=True)
class AugmentSpec:
    """Distributions of the augmentation's parameters; see :class:`PyramidAugment` for their meaning.

    Raises:
        ValueError: If a probability is not in [0, 1], a strength is negative, hue > 0.5, or sigma not positive.
    """

    flip_prob: float
    jitter_prob: float
    jitter: tuple[float, ...]
    gray_prob: float
    blur_prob: float
    blur_sigma: tuple[float, ...]
    solarize_prob: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_prob"):
                if not is_number(value) or not 0 <= value <= 1:
                    raise ValueError(f"{field.name} must be in [0, 1], got {value!r}")
            elif not isinstance(value, tuple) or not all(map(is_number, value)):
                raise ValueError(f"{field.name} must be several numbers, got {value!r}")
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(
                "jitter must be four strengths >= 0 (brightness, contrast, saturation, hue <= 0.5), "
                f"got {self.jitter}; the paper's are (0.8, 0.8, 0.8, 0.2)"
            )
        if len(self.blur_sigma) != 2 or not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be (low, high) with 0 < low <= high, got {self.blur_sigma}")


_AUGMENT_FIELDS = tuple(field.name for field in fields(AugmentSpec))


@dataclass(frozen=True)
class GroupSpec(Gridded):
    """Input of one backbone pass: patches of one size.

    Args:
        name: Key of the group in a batch.
        region: Side of a region in pixels.
        patch: Side of a patch in pixels; at most ``cell``.
        num_views: Number of views.
        shared_region: Whether all views cut their patches from the same region.
        grid: Cells per side of a region.
        area: Minimum and maximum fraction of the image area that a region covers, in (0, 1].
        aspect: Minimum and maximum ratio of width to height of a region.
        jigsaw: Whether a region is augmented as a whole, and its cells are then cut and shuffled, in another order in
            every view.
        paste: Minimum and maximum side in pixels of a foreground that is pasted over another image of the batch; the
            group then has boxes.
        overlap: Minimum and maximum side in pixels of a box in the overlap of two views; the group then has boxes.
        augment: Fields of :class:`AugmentSpec` that differ from those of the preprocessor: one dict for all views, or
            one per view.
    """

    name: str
    region: int
    patch: int
    num_views: int = NUM_VIEWS
    shared_region: bool = False
    grid: int = 1
    area: tuple[float, float] = (0.2, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    jigsaw: bool = False
    paste: tuple[int, int] | None = None
    overlap: tuple[int, int] | None = None
    augment: tuple[Mapping[str, Any], ...] = ()

    @property
    def num_regions(self) -> int:
        """Regions cut per image: 1 when the views share it."""
        return 1 if self.shared_region else self.num_views

    @property
    def augmented(self) -> GroupSpec:
        """Group of the patches that are augmented: of a jigsaw the regions themselves."""
        return replace(self, grid=1, patch=self.region, jigsaw=False) if self.jigsaw else self

    def augment_of(self, default: AugmentSpec) -> tuple[AugmentSpec, ...]:
        """Returns the distributions of each view."""
        changes = self.augment if len(self.augment) == self.num_views else (self.augment or ({},)) * self.num_views
        return tuple(replace(default, **tuples(change)) for change in changes)


@dataclass(frozen=True)
class ViewsSpec:
    """Groups of patches that are cut from an image, in the order in which random numbers are drawn.

    The groups of a pyramid are in the order of its scales, others in that of their names.

    Args:
        groups: At least one group.
    """

    groups: tuple[GroupSpec, ...]

    @property
    def main(self) -> GroupSpec:
        """Group of whole images: the one named main, else the first."""
        return next((group for group in self.groups if group.name == "main"), self.groups[0])

    def reduction(self, size: tuple[int, int]) -> int:
        """Returns the factor by which an image may be reduced before regions are cut.

        Args:
            size: Height and width of the image, in pixels.

        Returns:
            The largest of 1, 2, 4 and 8, the scales of JPEG decoders, that enlarges no crop.
        """
        side = math.sqrt(size[0] * size[1])
        least = min(math.sqrt(g.area[0] * min(g.aspect[0], 1 / g.aspect[1])) / g.region for g in self.groups)
        return max(factor for factor in (1, 2, 4, 8) if factor == 1 or side * least >= factor)

    @classmethod
    def from_config(cls, views: ViewsSpec | Mapping[str, Any]) -> ViewsSpec:
        """Builds and checks the spec of a config dict.

        Args:
            views: Per group's name, a dict with the fields of :class:`GroupSpec` except ``name``; None leaves out an
                inherited group. A :class:`ViewsSpec` is returned unchanged.

        Raises:
            TypeError: If the config or one of its groups is not a mapping.
            ValueError: If there is no group, a field is unknown or missing, or a number is impossible.
        """
        if isinstance(views, ViewsSpec):
            return views
        if not isinstance(views, Mapping):
            raise TypeError(f"views must be a dict of groups, e.g. dict(main=dict(...)), got {type(views).__name__}")
        # In the order of names: a dumped config has its keys sorted, and must draw the same random numbers.
        groups = tuple(_group_from_config(name, cfg) for name, cfg in sorted(views.items()) if cfg is not None)
        if not groups:
            raise ValueError("views has no group: give at least one, e.g. views=dict(main=dict(region=224, patch=224))")
        return cls(groups)


def _group_from_config(name: str, cfg: Mapping[str, Any]) -> GroupSpec:
    where = f"views.{name}"
    if not isinstance(cfg, Mapping):
        raise TypeError(f"{where} must be a dict, got {type(cfg).__name__}")
    check_keys(where, cfg, {f.name for f in fields(GroupSpec)} - {"name"}, required=("region", "patch"))
    kwargs = dict(cfg)
    augment = kwargs.pop("augment", None) or ()
    if not isinstance(augment, (Mapping, list, tuple)):
        raise TypeError(f"{where}.augment must be a dict, or a list of one dict per view, got {augment!r}")
    changes = (augment,) if isinstance(augment, Mapping) else tuple(augment)
    group = GroupSpec(name=name, augment=changes, **tuples(kwargs))
    check_count(f"{where}.num_views", group.num_views)
    check_geometry(where, group)
    for field in ("shared_region", "jigsaw"):
        if not isinstance(value := getattr(group, field), bool):
            raise ValueError(f"{where}.{field} must be True or False, got {value!r}")
    _check_boxes(where, group)
    _check_augment(where, changes, group.num_views)
    return group


def _check_boxes(where: str, group: GroupSpec) -> None:
    for field in ("paste", "overlap"):
        value = getattr(group, field)
        if value is None:
            continue
        check_range(f"{where}.{field}", value, upper=group.region)
        if group.num_views != NUM_VIEWS or group.grid != 1 or group.shared_region or group.patch != group.region:
            raise ValueError(f"{where}.{field} needs two views of whole regions: set num_views=2, grid=1, patch=region")
    if group.paste and group.overlap:
        raise ValueError(f"{where} has both paste and overlap: set one of them")


def _check_augment(where: str, changes: Sequence[Any], num_views: int) -> None:
    if len(changes) not in (0, 1, num_views):
        raise ValueError(
            f"{where}.augment must be one dict for all views or one for each of the {num_views}, got {len(changes)}"
        )
    for change in changes:
        if not isinstance(change, Mapping):
            raise TypeError(f"{where}.augment must hold dicts, got {type(change).__name__}")
        if unknown := sorted(set(change) - set(_AUGMENT_FIELDS)):
            raise ValueError(f"{where}.augment has unknown fields {unknown}: allowed are {sorted(_AUGMENT_FIELDS)}")
