"""SS-PRL: patches -> backbone -> pooled features -> projector -> head."""

from collections.abc import Mapping
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from sspyr_mm.models.assigners import FeatureQueue
from sspyr_mm.models.selfsup.view_model import ViewModel, with_one_size
from sspyr_mm.pyramid import PyramidSpec


@MODELS.register_module()
class SSPRL(ViewModel):
    """Self-supervised pyramid representation learning.

    Connects its parts: the data preprocessor augments, the neck embeds, the head computes codes and losses.

    Args:
        pyramid: Config of the pyramid; passed to preprocessor, neck and head, which need not repeat it.
        backbone: Config of any mmpretrain backbone that returns a map, tokens or vectors.
        neck: Config of :class:`PyramidProjector`.
        head: Config of :class:`SSPRLHead`. ``embed_dims`` equals the neck's ``out_channels``; one of them suffices.
        data_preprocessor: Config of :class:`PyramidAugment`.
        **kwargs: Arguments of :class:`ViewModel`: ``channels_last``, ``recompute``, ``compile_backbone``,
            ``pretrained``, ``init_cfg``.

    Raises:
        ValueError: If neck and head state different embedding sizes; see :class:`ViewModel` for others.

    Source: Algorithm 1.
    """

    def __init__(
        self,
        pyramid: PyramidSpec | Mapping[str, Any],
        backbone: dict,
        neck: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        **kwargs: Any,
    ) -> None:
        spec = PyramidSpec.from_config(pyramid)
        neck, head = with_one_size(neck, head)
        super().__init__(
            spec.views,
            backbone,
            {**neck, "pyramid": spec},
            {**head, "pyramid": spec},
            data_preprocessor,
            **kwargs,
        )
        self.pyramid = spec

    def size_messages(self, num_images: int) -> list[str]:
        """Reports prototypes and queues that are too many for the number of images."""
        return self.pyramid.size_messages(num_images)

    def num_cells(self, group: str) -> int:
        """Returns the number of patches of a scale."""
        return self.pyramid.scale(group).num_patches

    def queue_of(self, group: str) -> FeatureQueue | None:
        """Returns the queue of a scale."""
        return dict(self.head.queues.items()).get(group)

    def changed_by_hooks(self) -> list[nn.Parameter]:
        """Returns prototypes and correlation learners, which are normalised."""
        return self.head.target_parameters()

    def embed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds every group with one backbone pass each, and every scale with one projector pass.

        Scales never share batch statistics. The two views and the multi-crops of a scale share those of its
        projector, but not those of the backbone.

        Args:
            inputs: Per group's name, patches (V, B, M, 3, P, P).

        Returns:
            Per group's name, (V, B, M, D) of unit length.

        Source: official code, ``forward`` of the backbones: one projection of the concatenated pooled features.
        """
        embeddings = {}
        for scale in self.pyramid.scales:
            names = [group.name for group in self.pyramid.groups_of(scale)]
            features = [self.encode(inputs[name].flatten(0, 2)) for name in names]
            z = self.neck(torch.cat(features), scale.name).split([len(f) for f in features])
            for name, rows in zip(names, z, strict=True):
                embeddings[name] = rows.unflatten(0, inputs[name].shape[:3])
        return embeddings

    def loss(self, inputs: Mapping[str, Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """Computes the losses of one batch.

        Args:
            inputs: See :meth:`embed`.
            data_samples: Not used: the method needs no labels.

        Returns:
            See :meth:`SSPRLHead.loss`.
        """
        return self.head.loss(self.embed(inputs))
