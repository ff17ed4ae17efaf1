"""Swapped prediction: the code of one view is predicted from another view of the same scale.

Dimensions: V views, of which the first two have codes; N samples (images x patches), K prototypes.
"""

from typing import Literal, get_args

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from sspyr_mm.pyramid import NUM_VIEWS

Reduction = Literal["sum", "mean"]
"""Reduction over the terms of the two codes: sum (paper) or mean (official)."""


def direction_factor(reduction: Reduction) -> float:
    """Returns the factor of the mean cross-entropy: 2 for the paper's sum over both codes, 1 for their mean.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {get_args(Reduction)}, got {reduction!r}")
    return float(NUM_VIEWS) if reduction == "sum" else 1.0


def swapped_cross_entropy(codes: Tensor, log_probs: Tensor) -> Tensor:
    """Computes the mean cross-entropy of each code with the predictions of all *other* views.

    Args:
        codes: (2, N, K), rows sum to 1, no gradient.
        log_probs: (V, N, K) log-softmax of scores / temperature; the codes are computed from views 0 and 1;
            further views are multi-crops.

    Returns:
        Scalar; ln K if all predictions are uniform.

    Source: equation 2 and Algorithm 1, L_pyr without its weight and with the mean of both directions; with multi-crops
    the official code (each code predicted by the V - 1 other crops).
    """
    num_codes, (num_views, num_samples, _) = codes.shape[0], log_probs.shape
    total = log_probs.sum(0)
    # Sum over v != i of log P_v is one subtraction, whatever the number of multi-crops.
    others = total - log_probs[:num_codes]
    return -(codes * others).sum() / (num_codes * (num_views - 1) * num_samples)


@MODELS.register_module()
class SwappedPredictionLoss(nn.Module):
    """L_pyr of one scale, before its weight alpha.

    Args:
        reduction: Reduction, ``sum`` of both directions (paper) or their ``mean`` (official).
    """

    def __init__(self, reduction: Reduction = "sum") -> None:
        super().__init__()
        self.factor = direction_factor(reduction)

    def forward(self, codes: Tensor, log_probs: Tensor) -> Tensor:
        """Computes the loss; see :func:`swapped_cross_entropy`.

        Args:
            codes: (2, N, K).
            log_probs: (V, N, K).

        Returns:
            Scalar loss.
        """
        return self.factor * swapped_cross_entropy(codes, log_probs)
