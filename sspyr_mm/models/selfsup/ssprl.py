"""SS-PRL: regions -> patches -> backbone -> projector -> head."""

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor

from sspyr_mm.models.layers import pool
from sspyr_mm.models.selfsup.state_check import check_complete
from sspyr_mm.pyramid import PyramidSpec


def _with_one_size(neck: dict, head: dict) -> tuple[dict, dict]:
    """Both configs with the size of an embedding that one of them states."""
    sizes = {c[key] for c, key in ((neck, "out_channels"), (head, "embed_dims")) if key in c}
    if len(sizes) > 1:
        raise ValueError(
            f"neck.out_channels is {neck['out_channels']} and head.embed_dims {head['embed_dims']}, but both are the "
            "size of an embedding: remove head.embed_dims, which follows from the neck's"
        )
    for size in sizes:
        neck, head = {**neck, "out_channels": size}, {**head, "embed_dims": size}
    return neck, head


@MODELS.register_module()
class SSPRL(BaseSelfSupervisor):
    """Self-supervised pyramid representation learning.

    Only wiring: augmentation is the data preprocessor's, embeddings are the neck's, codes and losses the head's.

    Args:
        pyramid: Config of the pyramid; handed to preprocessor, neck and head, which need not repeat it.
        backbone: Any mmpretrain backbone that ends in a map, tokens or vectors.
        neck: :class:`PyramidProjector`.
        head: :class:`SSPRLHead`. Its ``embed_dims`` is the neck's ``out_channels``; stating one of them is enough.
        data_preprocessor: :class:`PyramidAugment`.
        channels_last: Whether the backbone works on channels-last tensors; numbers differ by rounding only.
            Convolutions on tensor cores and on CPUs are faster so.
        pretrained: Checkpoint to start from.
        init_cfg: Initialisation.

    Raises:
        ValueError: If neck and head state different sizes of an embedding.

    Source: Algorithm 1.
    """

    def __init__(
        self,
        pyramid: PyramidSpec | Mapping[str, Any],
        backbone: dict,
        neck: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        *,
        channels_last: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        spec = PyramidSpec.from_config(pyramid)
        neck, head = _with_one_size(neck, head)
        preprocessor = {"type": "PyramidAugment", **(data_preprocessor or {})}
        super().__init__(
            backbone=backbone,
            neck={**neck, "pyramid": spec},
            head={**head, "pyramid": spec},
            pretrained=pretrained,
            data_preprocessor=MODELS.build({**preprocessor, "pyramid": spec}),
            init_cfg=init_cfg,
        )
        self.pyramid = spec
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone.to(memory_format=self.memory_format)
        self.backbone._register_load_state_dict_pre_hook(check_complete, with_module=True)

    def embed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeddings of every group; one backbone pass each, so that scales never share batch statistics.

        Args:
            inputs: Per group's name, patches (V, B, M, 3, P, P).

        Returns:
            Per group's name, (V, B, M, D) of unit length.
        """
        embeddings = {}
        for group in self.pyramid.groups:
            patches = inputs[group.name]
            feats = pool(
                self.backbone(patches.flatten(0, 2).contiguous(memory_format=self.memory_format))
            )
            embeddings[group.name] = self.neck(feats, group.scale.name).unflatten(
                0, patches.shape[:3]
            )
        return embeddings

    def loss(
        self, inputs: Mapping[str, Tensor], data_samples: list | None = None
    ) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            inputs: See :meth:`embed`.
            data_samples: Not used; the method has no labels.

        Returns:
            See :meth:`SSPRLHead.loss`.
        """
        return self.head.loss(self.embed(inputs))
