"""Cross-scale loss: the code of the whole image is predicted from its patches at a finer scale.

Dimensions: B images, K_0 prototypes of scale 0.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from sspyr_mm.models.losses.swapped_prediction_loss import Reduction, direction_factor

Pairs = Literal["matched", "all"]
"""Pairs of codes and views: Q_0 with V_s and Q'_0 with V'_s (paper), or all four (official)."""


def cross_scale_cross_entropy(codes: Tensor, log_predictions: Tensor, *, pairs: Pairs = "matched") -> Tensor:
    """Computes the mean cross-entropy over the pairs of a scale-0 code and a prediction from patches.

    Args:
        codes: (2, B, K_0) codes of scale 0, no gradient.
        log_predictions: (2, B, K_0) log g_s(Avg(V_s)) of both views.
        pairs: Pairs of codes and views, ``matched`` or ``all``.

    Returns:
        Scalar.

    Source: equation 3 and Algorithm 1, L_cross without its weight; ``all`` from the official code.
    """
    num_views, num_images, _ = codes.shape
    if pairs == "matched":
        return -(codes * log_predictions).sum() / (num_views * num_images)
    return -(codes.sum(0) * log_predictions.sum(0)).sum() / (num_views**2 * num_images)


@MODELS.register_module()
class CrossScaleLoss(nn.Module):
    """L_cross of all scales >= 1, weighted.

    Args:
        pairs: Pairs of codes and views, ``matched`` (paper) or ``all`` (official).
        reduction: Reduction, ``sum`` of both codes (paper) or their ``mean`` (official).
        loss_weight: lambda, >= 0.

    Raises:
        ValueError: If an argument is unknown or negative.
    """

    def __init__(self, pairs: Pairs = "matched", reduction: Reduction = "sum", loss_weight: float = 1.0) -> None:
        super().__init__()
        if pairs not in get_args(Pairs):
            raise ValueError(f"pairs must be one of {get_args(Pairs)}, got {pairs!r}")
        if loss_weight < 0:
            raise ValueError(f"loss_weight must be >= 0, got {loss_weight}; 0 disables the cross-scale terms")
        self.pairs: Pairs = pairs
        self.factor = direction_factor(reduction)
        self.loss_weight = loss_weight

    def forward(
        self, codes: Tensor, log_predictions: Mapping[str, Tensor], betas: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Computes the weighted term of each scale.

        Args:
            codes: (2, B, K_0) codes of scale 0.
            log_predictions: Per scale's name, (2, B, K_0).
            betas: Per scale's name, its weight.

        Returns:
            ``{'loss_cross_s1': scalar, ...}``.

        Raises:
            ValueError: If weights and predictions do not have the same scales.
        """
        if set(log_predictions) != set(betas):
            raise ValueError(
                f"One weight per scale is needed: predictions for {sorted(log_predictions)}, weights for "
                f"{sorted(betas)}; give beta for each scale >= 1 in the pyramid"
            )
        return {
            f"loss_cross_{name}": self.loss_weight
            * betas[name]
            * self.factor
            * cross_scale_cross_entropy(codes, log_p, pairs=self.pairs)
            for name, log_p in log_predictions.items()
        }
