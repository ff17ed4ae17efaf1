"""InsLoc: contrast of pasted foregrounds by their boxes, at every level of an FPN."""

from collections.abc import Mapping

from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from sspyr_mm.models.layers import precise
from sspyr_mm.models.necks import RegionProjector
from sspyr_mm.models.selfsup.momentum_contrast import GROUP, Encoder, MoCoV2


@MODELS.register_module()
class InsLoc(MoCoV2):
    """InstanceLoc, FPN variant: a foreground pasted on two other images is recognised by the features under its box.

    At the last level the box of the query is replaced by a similar one, so that features are not tied to one box.

    Args: those of :class:`MomentumModel`. The group ``main`` has ``paste``, the backbone returns its levels, the neck
    is a :class:`RegionProjector`. Terms of the head use the embeddings ``p0``, ``p1``, ... of the levels.

    Source: InstanceLoc, sections 3.1 to 3.3; limbo0000/InstanceLoc ``insloc_fpn.py``.
    Deviation: backgrounds are the other images of the batch.
    """

    projector = RegionProjector

    def embedding_names(self) -> tuple[list[str], list[str], list[str]]:
        """See :meth:`MoCoV2.embedding_names`."""
        names = [f"p{i}" for i in range(len(self.neck.in_channels))]
        return names, names, names

    def embed(self, encoder: Encoder, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds the foregrounds of one view of a batch.

        Args:
            encoder: ``backbone`` and ``neck``.
            images: ``main`` (B, 1, 3, P, P) and ``main_boxes`` (B, 2, 4): the foreground's, and that of the last level.

        Returns:
            ``p0``, ...: (B, D) of unit length, per level.
        """
        composites, boxes = images[GROUP].flatten(0, 1), images[f"{GROUP}_boxes"]
        feats = self.encode(composites, encoder["backbone"], reduce=tuple)
        chosen = [boxes[:, 0]] * (len(feats) - 1) + [boxes[:, 1]]
        levels = encoder["neck"](feats, chosen, composites.shape[-1])
        return {f"p{i}": F.normalize(precise(z), dim=1) for i, z in enumerate(levels)}
