"""DetCo: contrast of images and of shuffled patches at every level of the backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from sspyr_mm.models.layers import pool, precise
from sspyr_mm.models.necks import LevelProjectors
from sspyr_mm.models.selfsup.momentum_contrast import GROUP, Encoder, MoCoV2
from sspyr_mm.views import ViewsSpec

PATCHES = "jigsaw"
"""Name of the group of patches."""


@MODELS.register_module()
class DetCo(MoCoV2):
    """DetCo: MoCo v2 at every level of the backbone, for images, for their shuffled patches, and across the two.

    Args: those of :class:`MomentumModel`. The views have a second group ``jigsaw``, the backbone returns the levels,
    the neck is a :class:`LevelProjectors`. Terms of the head use the embeddings ``g0``, ``g1``, ... of images and
    ``l0``, ``l1``, ... of patches at each level. ``level_weights`` are those of the levels in the terms ``image<i>``,
    ``patch<i>`` and ``across<i>``, patches against the keys of images; a head with ``terms`` of its own ignores them.

    Source: DetCo, equations 1 to 5.
    """

    groups = (GROUP, PATCHES)
    projector = LevelProjectors

    def __init__(
        self,
        views: ViewsSpec | Mapping[str, Any],
        backbone: dict,
        neck: dict,
        head: dict,
        *args: Any,
        level_weights: Sequence[float] = (0.1, 0.4, 0.7, 1.0),
        **kwargs: Any,
    ) -> None:
        if isinstance(head, Mapping) and "terms" not in head:
            head = {**head, "terms": _terms(level_weights)}
        super().__init__(views, backbone, neck, head, *args, **kwargs)
        group = next(group for group in self.views.groups if group.name == PATCHES)
        if not group.jigsaw or group.num_views != 2 or group.num_patches != self.neck.num_patches:
            raise ValueError(
                f"DetCo needs views.{PATCHES}=dict(jigsaw=True, num_views=2, ...) with as many cells as the neck's "
                f"num_patches={self.neck.num_patches}, got jigsaw={group.jigsaw}, num_views={group.num_views}, grid="
                f"{group.grid}"
            )

    def embedding_names(self) -> tuple[list[str], list[str], list[str]]:
        """See :meth:`MoCoV2.embedding_names`."""
        names = [f"{kind}{i}" for kind in "gl" for i in range(len(self.neck.in_channels))]
        return names, names, names

    def embed(self, encoder: Encoder, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds one view of a batch.

        Args:
            encoder: ``backbone`` and ``neck``.
            images: ``main`` (B, 1, 3, P, P) and ``jigsaw`` (B, M, 3, P', P').

        Returns:
            ``g0``, ..., ``l0``, ...: (B, D) of unit length, per level.
        """
        features = [
            self.encode(x.flatten(0, 1), encoder["backbone"], reduce=_levels, per_image=x.shape[1]).unflatten(
                0, x.shape[:2]
            )
            for x in (images[GROUP], images[PATCHES])
        ]
        wholes, parts = encoder["neck"](features[0].squeeze(1), features[1])
        embedded = {f"{kind}{i}": z for kind, found in (("g", wholes), ("l", parts)) for i, z in enumerate(found)}
        return {name: F.normalize(precise(z), dim=1) for name, z in embedded.items()}


def _terms(level_weights: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Returns the terms of all levels, whose names count the stages of a ResNet, from 2."""
    return {
        f"{name}{level + 2}": {"query": f"{query}{level}", "key": f"{key}{level}", "weight": weight}
        for name, query, key in (("image", "g", "g"), ("patch", "l", "l"), ("across", "l", "g"))
        for level, weight in enumerate(level_weights)
    }


def _levels(feats: tuple[Tensor, ...]) -> Tensor:
    """Returns the means of all levels, concatenated (N, sum of channels)."""
    return torch.cat([pool(level) for level in feats], dim=1)
