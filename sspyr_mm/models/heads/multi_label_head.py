"""Multi-label classification with ignored labels."""

from typing import Any

import torch
from mmengine.dist import get_world_size
from mmpretrain.models.heads import MultiLabelLinearClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor


@MODELS.register_module()
class MaskedMultiLabelHead(MultiLabelLinearClsHead):
    """mmpretrain's linear multi-label head, with labels that the loss ignores.

    PASCAL VOC marks objects as difficult; a class with only difficult objects is neither present nor absent.

    Args:
        num_classes: L, number of classes.
        in_channels: C, width of the features.
        loss: Config of a loss with ``reduction_override='none'``: ``CrossEntropyLoss`` with ``use_sigmoid``, or
            ``AsymmetricLoss``.
        mean_over_images: Whether the sum over classes is averaged over the images of the batch, instead of summed over
            those of all ranks.
        **kwargs: Arguments of ``MultiLabelLinearClsHead``.
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
        """Returns the features of the last stage.

        Args:
            feats: Outputs of the neck; the last is (B, C).

        Returns:
            (B, C).

        Raises:
            ValueError: If their width is not ``in_channels``.
        """
        last = super().pre_logits(feats)
        if last.shape[-1] != self.in_channels:
            raise ValueError(
                f"model.head.in_channels is {self.in_channels}, but the features have "
                f"{last.shape[-1]} channels: set model.head.in_channels={last.shape[-1]}"
            )
        return last

    def _get_loss(self, cls_score: Tensor, data_samples: list[DataSample], **kwargs: Any) -> dict[str, Tensor]:
        """Computes the loss of a batch.

        Args:
            cls_score: (B, L) logits.
            data_samples: B samples with ``gt_score`` (L,): 1, 0, or -1 for ignored labels.
            **kwargs: Arguments of the loss.

        Returns:
            ``loss``, a scalar.
        """
        targets = torch.stack([sample.gt_score for sample in data_samples]).to(cls_score.device)
        # In float32: half precision would truncate the product of sigmoids and a logarithm.
        terms = self.loss_module(cls_score.float(), targets.clamp_min(0).float(), reduction_override="none", **kwargs)
        total = (terms * (targets >= 0)).sum()
        # Gradients are averaged over ranks; multiplying by their number gives the sum over all images.
        scale = 1 / len(data_samples) if self.mean_over_images else get_world_size()
        return {"loss": total * scale}
