"""Multi-label classification where some labels count for nothing."""

from typing import Any

import torch
from mmengine.dist import get_world_size
from mmpretrain.models.heads import MultiLabelLinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor


@MODELS.register_module()
class MaskedMultiLabelHead(MultiLabelLinearClsHead):
    """mmpretrain's linear multi-label head, with labels that are left out of the loss.

    PASCAL VOC marks objects as difficult; a class an image shows only such objects of is neither present nor absent.

    Args:
        num_classes: L.
        in_channels: C.
        loss: A loss that takes ``reduction_override='none'``: ``CrossEntropyLoss`` with ``use_sigmoid``, or
            ``AsymmetricLoss``.
        mean_over_images: Whether the sum over classes is averaged over the images of the batch, or summed over those
            of all ranks.
        **kwargs: See ``MultiLabelLinearClsHead``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        loss: dict | None = None,
        *,
        mean_over_images: bool = True,
        **kwargs: Any,
    ) -> None:
        loss = loss or dict(type="CrossEntropyLoss", use_sigmoid=True)
        super().__init__(num_classes, in_channels, loss=loss, **kwargs)
        self.mean_over_images = mean_over_images

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The last stage's features.

        Args:
            feats: Of the neck; the last (B, C).

        Returns:
            (B, C).

        Raises:
            ValueError: If their width is not ``in_channels``.
        """
        last = super().pre_logits(feats)
        if last.shape[-1] != self.in_channels:
            raise ValueError(
                f"model.head.in_channels is {self.in_channels}, but the features that come have "
                f"{last.shape[-1]} channels: set model.head.in_channels={last.shape[-1]}"
            )
        return last

    def _get_loss(self, cls_score: Tensor, data_samples: list[DataSample], **kwargs: Any) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            cls_score: (B, L) logits.
            data_samples: B, with ``gt_score`` (L,): 1, 0, or -1 for what counts for nothing.
            **kwargs: Of the loss.

        Returns:
            ``loss``, a scalar.
        """
        targets = torch.stack([sample.gt_score for sample in data_samples]).to(cls_score.device)
        # In float32: a product of sigmoids and a logarithm, which half precision cuts off.
        terms = self.loss_module(cls_score.float(), targets.clamp_min(0).float(), reduction_override="none", **kwargs)
        total = (terms * (targets >= 0)).sum()
        # Ranks' gradients are averaged: a sum over the images of all of them is as many times as great.
        scale = 1 / len(data_samples) if self.mean_over_images else get_world_size()
        return {"loss": total * scale}
