"""Specification of the pyramid, shared by transform, preprocessor, projector and head.

A config holds one dict, and every component reads the same one::

    pyramid = dict(
        s0=dict(grid=1, region=224, patch=224, area=(0.14, 1.0), num_prototypes=300, alpha=1.0),
        s1=dict(grid=2, region=314, patch=112, area=(0.6, 1.0), num_prototypes=150, alpha=0.25, beta=0.25),
        s2=dict(grid=3, region=383, patch=96, area=(0.6, 1.0), num_prototypes=150, alpha=0.25, beta=0.25),
    )

Terms: a *region* is a random resized crop of the image at one scale; it is split into ``grid x grid`` *cells*; a
*patch* is a crop of a cell after augmentation, which is what the encoder sees. A *view* is one of the two sets V and
V' of patches. A *group* is the input of one backbone pass: all views and patches of one scale, or the
multi-crops of scale 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from sspyr_mm.views.checks import check_count, check_geometry, check_keys, check_range, is_number, tuples
from sspyr_mm.views.view_spec import NUM_VIEWS, Gridded, GroupSpec, ViewsSpec


@dataclass(frozen=True)
class MultiCropSpec:
    """Small extra crops that predict the codes of scale 0 and have no codes themselves.

    Args:
        num_views: Crops per image, >= 1.
        patch: Side of a crop in pixels.
        area: Minimum and maximum fraction of the image area that a crop covers, in (0, 1].

    Source: official code, six 96 px crops of area 0.05-0.14.
    """

    num_views: int = 6
    patch: int = 96
    area: tuple[float, float] = (0.05, 0.14)


@dataclass(frozen=True)
class ScaleSpec(Gridded):
    """One scale of the pyramid.

    Args:
        name: ``s0``, ``s1``, ...; also the key of the scale's tensors in a batch.
        scale_idx: Position in the pyramid; 0 is the whole image.
        region: Side of the region in pixels.
        patch: Side of a patch in pixels; at most ``cell``.
        num_prototypes: K, >= 1.
        alpha: Weight of the swapped prediction at this scale, >= 0. A config must state it.
        beta: Weight of the cross-scale term, >= 0. A config must state it for scales >= 1; 0 at scale 0, which is the
            target of the others.
        grid: Cells per side, so ``num_patches = grid ** 2``.
        area: Minimum and maximum fraction of the image area that a region covers, in (0, 1].
        aspect: Minimum and maximum ratio of width to height of a region.
        shared_region: Whether both views cut their patches from the same region, so that patch m of V and patch m of
            V' show the same cell. Defaults to True for scales >= 1 and False for scale 0.
        queue_length: Embeddings of earlier steps that join Sinkhorn, per view, over all ranks; 0 for none.
        multi_crop: Extra crops; scale 0 only.
    """

    name: str
    scale_idx: int
    region: int
    patch: int
    num_prototypes: int
    alpha: float
    beta: float = 0.0
    grid: int = 1
    area: tuple[float, float] = (0.6, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    shared_region: bool = False
    queue_length: int = 0
    multi_crop: MultiCropSpec | None = None

    @property
    def num_regions(self) -> int:
        """Regions cut from an image for the two views: 1 when they share it."""
        return 1 if self.shared_region else NUM_VIEWS


@dataclass(frozen=True)
class PyramidSpec:
    """All scales, in order.

    Args:
        scales: At least one :class:`ScaleSpec`, ``scales[i].scale_idx == i``.

    Raises:
        ValueError: If the geometry or a number is impossible.
    """

    scales: tuple[ScaleSpec, ...]

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError(
                "The pyramid has no scale: give at least s0, e.g. pyramid = dict(s0=dict(region=224, ...))"
            )
        for scale in self.scales:
            _check_scale(scale)

    def scale(self, name: str) -> ScaleSpec:
        """Returns the scale of a name."""
        return next(scale for scale in self.scales if scale.name == name)

    @property
    def num_scales(self) -> int:
        """S + 1."""
        return len(self.scales)

    @cached_property
    def views(self) -> ViewsSpec:
        """Groups in order: each scale, its multi-crops right after it."""
        return ViewsSpec(tuple(group for scale in self.scales for group in self.groups_of(scale)))

    @property
    def groups(self) -> tuple[GroupSpec, ...]:
        """Groups of :attr:`views`."""
        return self.views.groups

    def groups_of(self, scale: ScaleSpec) -> tuple[GroupSpec, ...]:
        """Returns the groups of one scale: its two views, then its multi-crops."""
        s, crops = scale, scale.multi_crop
        own = GroupSpec(s.name, s.region, s.patch, NUM_VIEWS, s.shared_region, s.grid, s.area, s.aspect)
        if crops is None:
            return (own,)
        side = crops.patch
        return own, GroupSpec(f"{s.name}_crops", side, side, crops.num_views, area=crops.area, aspect=s.aspect)

    def size_messages(self, num_images: int) -> list[str]:
        """Reports settings that are too large for the number of images, one message per setting."""
        messages = []
        for scale in self.scales:
            patches = num_images * scale.num_patches
            if scale.num_prototypes > patches:
                messages.append(
                    f"{scale.name} has {scale.num_prototypes} prototypes for {patches} patches ({num_images} images): "
                    f"most will stay empty. Use more images, or set model.pyramid.{scale.name}.num_prototypes to about "
                    f"{max(1, patches // 10)}, one per ten patches."
                )
            if scale.queue_length > patches:
                messages.append(
                    f"The queue of {scale.name} ({scale.queue_length}) is longer than an epoch ({patches} patches): it "
                    f"would hold the same patches more than once. Set model.pyramid.{scale.name}.queue_length to "
                    f"{patches // 2} or less."
                )
        return messages

    @classmethod
    def from_config(cls, pyramid: PyramidSpec | Mapping[str, Any]) -> PyramidSpec:
        """Builds and checks the spec of a config dict.

        Args:
            pyramid: ``dict(s0=dict(...), s1=dict(...), ...)`` with the fields of :class:`ScaleSpec` except ``name`` and
                ``scale_idx``; ``s2=None`` leaves out that scale (which must be the last one), so that a variant can
                shorten an inherited pyramid. A :class:`PyramidSpec` is returned unchanged.

        Raises:
            TypeError: If the pyramid or one of its scales is not a mapping.
            ValueError: If scales are missing or unknown fields are given.
        """
        if isinstance(pyramid, PyramidSpec):
            return pyramid
        if not isinstance(pyramid, Mapping):
            raise TypeError(f"pyramid must be a dict of scales (s0=..., s1=...), got {type(pyramid).__name__}")
        given = {name: cfg for name, cfg in pyramid.items() if cfg is not None}
        wanted = [f"s{i}" for i in range(len(given))]
        if set(given) != set(wanted):
            raise ValueError(
                f"Scales must be named s0, s1, ... without a gap, got {sorted(given, key=str)}: "
                f"rename them to {wanted}, or set all scales above the last one to None"
            )
        return cls(tuple(_scale_from_config(i, name, given[name]) for i, name in enumerate(wanted)))


def _scale_from_config(scale_idx: int, name: str, cfg: Mapping[str, Any]) -> ScaleSpec:
    if not isinstance(cfg, Mapping):
        raise TypeError(f"pyramid.{name} must be a dict, got {type(cfg).__name__}")
    allowed = {f.name for f in fields(ScaleSpec)} - {"name", "scale_idx"}
    check_keys(f"pyramid.{name}", cfg, allowed, required=("region", "patch", "num_prototypes"))
    # A default weight would drop or weigh a loss term silently.
    if missing := [f for f in ("alpha", *["beta"] * (scale_idx > 0)) if f not in cfg]:
        example = ", ".join(f"{field}={0.25 if scale_idx > 0 else 1.0}" for field in missing)
        raise ValueError(
            f"pyramid.{name} does not state {' and '.join(missing)}, the weight of its loss: write {name}=dict("
            f"{example}, ...), or 0 to leave the term out"
        )
    kwargs = dict(cfg)
    crops = kwargs.pop("multi_crop", None)
    if crops is not None:
        if not isinstance(crops, Mapping):
            raise TypeError(
                f"pyramid.{name}.multi_crop must be a dict such as dict(num_views=6, patch=96) or None, "
                f"got {type(crops).__name__}"
            )
        check_keys(f"pyramid.{name}.multi_crop", crops, {f.name for f in fields(MultiCropSpec)})
        crops = MultiCropSpec(**tuples(crops))
    kwargs.setdefault("shared_region", scale_idx > 0)
    return ScaleSpec(name=name, scale_idx=scale_idx, multi_crop=crops, **tuples(kwargs))


def _check_scale(s: ScaleSpec) -> None:
    """Raises ValueError if the geometry or a number of a scale is impossible."""
    where, crops = f"pyramid.{s.name}", s.multi_crop
    check_geometry(where, s)
    check_count(f"{where}.num_prototypes", s.num_prototypes, remedy=", or leave the scale out by setting it to None")
    for field in ("alpha", "beta"):
        if not is_number(value := getattr(s, field)) or value < 0:
            raise ValueError(f"{where}.{field} must be one number >= 0, got {value!r}")
    if s.scale_idx == 0 and s.beta:
        raise ValueError(f"{where}.beta must be 0, got {s.beta}: scale 0 is the target of the cross-scale terms")
    if not isinstance(s.shared_region, bool):
        raise ValueError(f"{where}.shared_region must be True or False, got {s.shared_region!r}")
    check_count(f"{where}.queue_length", s.queue_length, least=0)
    if crops is not None:
        if s.scale_idx != 0:
            raise ValueError(f"{where}.multi_crop: extra crops belong to s0, the only scale without a grid; remove it")
        check_count(f"{where}.multi_crop.num_views", crops.num_views)
        check_count(f"{where}.multi_crop.patch", crops.patch)
        check_range(f"{where}.multi_crop.area", crops.area, upper=1.0)


def views_of(model: Mapping[str, Any]) -> ViewsSpec:
    """Returns the views of the ``model`` dict of a pre-training config, from its ``pyramid`` or its ``views``.

    Raises:
        ValueError: If it has neither, or one that is not valid.
    """
    if "pyramid" in model:
        return PyramidSpec.from_config(model["pyramid"]).views
    if "views" in model:
        return ViewsSpec.from_config(model["views"])
    raise ValueError(f"A pre-training model has a pyramid or views, but this one only has {sorted(model)}")
