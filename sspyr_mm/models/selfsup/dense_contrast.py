"""DenseCL: contrast of images and of corresponding positions in their maps."""

from collections.abc import Mapping

import torch
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from sspyr_mm.models.layers import precise
from sspyr_mm.models.necks import DenseProjector
from sspyr_mm.models.selfsup.momentum_contrast import GROUP, Encoder, MoCoV2


@MODELS.register_module()
class DenseMoCo(MoCoV2):
    """DenseCL: MoCo v2 with a second term for every position of the last map.

    The key of a position is the position of the other view whose feature of the backbone is most similar. The negatives
    of positions are the pooled dense embeddings of earlier images.

    Args: those of :class:`MomentumModel`. The backbone returns maps, the neck is a :class:`DenseProjector`. The head
    has the terms ``main`` and ``dense``, whose weights are 1 - lambda and lambda; ``dense`` has the key ``matched`` and
    the queue ``dense``.

    Source: DenseCL, equations 2 to 5; WXinlong/DenseCL ``densecl.py``.
    """

    projector = DenseProjector
    _num_positions = 1
    """H * W of the last map; known after the first batch."""

    def embedding_names(self) -> tuple[list[str], list[str], list[str]]:
        """See :meth:`MoCoV2.embedding_names`."""
        return ["main", "dense"], ["main", "matched"], ["main", "dense"]

    def num_cells(self, group: str) -> int:
        """Returns the number of positions of the last map for a term of positions, and 1 for one of images."""
        return self._num_positions if self.head.terms[group].query == "dense" else 1

    def embed(self, encoder: Encoder, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds images and the H * W positions of their maps.

        Args:
            encoder: ``backbone`` and ``neck``.
            images: ``main``, (B, 1, 3, P, P).

        Returns:
            ``main`` (B, D); ``dense`` (B, D), of the pooled dense projection; ``positions`` (B, H * W, D); ``features``
            (B, H * W, C), of the backbone, no gradient. Vectors have unit length.
        """
        feats = self.encode(images[GROUP].flatten(0, 1), encoder["backbone"], reduce=last_map)
        z, dense = (precise(x) for x in encoder["neck"](feats))
        return {
            "main": F.normalize(z, dim=1),
            "dense": F.normalize(dense.mean(dim=(2, 3)), dim=1),
            "positions": F.normalize(dense.flatten(2), dim=1).transpose(1, 2),
            "features": F.normalize(precise(feats.detach()).flatten(2), dim=1).transpose(1, 2),
        }

    def pair(self, queries: dict[str, Tensor], keys: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Matches every position of a query with one of its key; ties take the first.

        Returns:
            Queries ``main`` (B, D) and ``dense`` (B * H * W, D), keys ``main`` and ``matched`` likewise.
        """
        self._num_positions = queries["positions"].shape[1]
        with torch.no_grad():
            place = (queries["features"] @ keys["features"].transpose(1, 2)).argmax(dim=2)
            matched = keys["positions"].gather(1, place[..., None].expand_as(keys["positions"]))
        return (
            {"main": queries["main"], "dense": queries["positions"].flatten(0, 1)},
            {"main": keys["main"], "matched": matched.flatten(0, 1)},
        )


def last_map(feats: Tensor | tuple) -> Tensor:
    """Returns the last output of a backbone; raises ValueError if it is not a map."""
    last = feats[-1] if isinstance(feats, (tuple, list)) else feats
    if last.ndim != 4:
        raise ValueError(
            f"The method needs a backbone whose last output is a map (N, C, H, W), got {tuple(last.shape)}: use a "
            "ResNet, or out_type='featmap' of a transformer"
        )
    return last
