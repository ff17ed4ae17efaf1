"""SS-PRL: patches -> backbone -> pooled features -> projector -> head."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor

from sspyr_mm.models.layers import pool, recompute_stages, recomputed
from sspyr_mm.models.state_check import check_complete
from sspyr_mm.pyramid import PyramidSpec


def _with_one_size(neck: dict, head: dict) -> tuple[dict, dict]:
    """Returns both configs with the embedding size that one of them states."""
    sizes = {c[key] for c, key in ((neck, "out_channels"), (head, "embed_dims")) if key in c}
    if len(sizes) > 1:
        raise ValueError(
            f"neck.out_channels is {neck['out_channels']} and head.embed_dims {head['embed_dims']}, but both are the "
            "embedding size: remove head.embed_dims, which defaults to the neck's"
        )
    for size in sizes:
        neck, head = {**neck, "out_channels": size}, {**head, "embed_dims": size}
    return neck, head


@MODELS.register_module()
class SSPRL(BaseSelfSupervisor):
    """Self-supervised pyramid representation learning.

    Connects its parts: the data preprocessor augments, the neck embeds, the head computes codes and losses.

    Args:
        pyramid: Config of the pyramid; passed to preprocessor, neck and head, which need not repeat it.
        backbone: Config of any mmpretrain backbone that returns a map, tokens or vectors.
        neck: Config of :class:`PyramidProjector`.
        head: Config of :class:`SSPRLHead`. ``embed_dims`` equals the neck's ``out_channels``; one of them suffices.
        data_preprocessor: Config of :class:`PyramidAugment`.
        channels_last: Whether the backbone uses channels-last tensors, which are faster on tensor cores and CPUs;
        results differ by rounding only.
        recompute: Activations to recompute in the backward pass instead of keeping them: ``None``; ``'scale'`` for
            those of the backbone, one group at a time; ``'stage'`` for those of every stage of the backbone, which
            needs the least memory. Gradients are the same. Both cost one more forward pass.
        compile_backbone: Whether to compile the backbone with ``torch.compile``: one graph per patch size, in the
            first steps, which take minutes. Names in checkpoints do not change.
        pretrained: Checkpoint to start from.
        init_cfg: Config of the initialisation.

    Raises:
        ValueError: If neck and head state different embedding sizes; if ``recompute`` is unknown, or the backbone has
            no stages; if ``recompute='stage'`` is combined with ``compile_backbone``.

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
        recompute: str | None = None,
        compile_backbone: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if recompute not in (None, "scale", "stage"):
            raise ValueError(f"recompute must be None, 'scale' or 'stage', got {recompute!r}")
        if compile_backbone and recompute == "stage":
            raise ValueError("compile_backbone=True does not support recompute='stage': use recompute='scale'")
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
        self.recompute = recompute
        if recompute == "stage":
            recompute_stages(self.backbone)
        if compile_backbone:
            self.backbone.compile(dynamic=False)
        self.backbone._register_load_state_dict_pre_hook(check_complete, with_module=True)

    def init_weights(self) -> None:
        """Initialises weights in contiguous memory order, so that ``channels_last`` does not change random numbers."""
        self.backbone.to(memory_format=torch.contiguous_format)
        super().init_weights()
        self.backbone.to(memory_format=self.memory_format)

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
        encode = partial(recomputed, self._encode, self) if self.recompute == "scale" else self._encode
        embeddings = {}
        for scale in self.pyramid.scales:
            names = [group.name for group in self.pyramid.groups_of(scale)]
            features = [encode(inputs[name].flatten(0, 2)) for name in names]
            z = self.neck(torch.cat(features), scale.name).split([len(f) for f in features])
            for name, rows in zip(names, z, strict=True):
                embeddings[name] = rows.unflatten(0, inputs[name].shape[:3])
        return embeddings

    def _encode(self, patches: Tensor) -> Tensor:
        """Returns pooled features (N, C) of patches (N, 3, P, P)."""
        return pool(self.backbone(patches.contiguous(memory_format=self.memory_format)))

    def loss(self, inputs: Mapping[str, Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """Computes the losses of one batch.

        Args:
            inputs: See :meth:`embed`.
            data_samples: Not used: the method needs no labels.

        Returns:
            See :meth:`SSPRLHead.loss`.
        """
        return self.head.loss(self.embed(inputs))
