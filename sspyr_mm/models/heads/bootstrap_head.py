"""Head of BYOL: a predictor, and the regression of the other view's target."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from sspyr_mm.health import record
from sspyr_mm.models.layers import build_mlp, precise
from sspyr_mm.models.losses import regression
from sspyr_mm.models.state_check import check_head_state


@MODELS.register_module()
class BootstrapHead(BaseModule):
    """Predicts the target embedding of one view from the online embedding of the other.

    Args:
        embed_dims: D, size of an embedding.
        hid_channels: Width of the predictor's hidden layer.
        norm_cfg: Normalisation of the hidden layer.
        init_cfg: Config of the initialisation; default: torch's own.

    Source: BYOL, equation 2 and appendix A; google-deepmind/deepmind-research ``byol_experiment.py``.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        hid_channels: int = 4096,
        *,
        norm_cfg: Mapping[str, Any] = {"type": "SyncBN"},
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.predictor = build_mlp(embed_dims, hid_channels, embed_dims, norm_cfg=norm_cfg, last_bias=False)
        # The oldest supported torch lacks the public method of this name.
        self._register_load_state_dict_pre_hook(check_head_state, with_module=True)

    def loss(self, online: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Tensor]:
        """Computes the symmetric loss.

        Args:
            online: Embeddings (B, D) of both views; each passes the predictor by itself.
            targets: Embeddings (B, D) of both views by the momentum encoder, no gradient.

        Returns:
            ``loss_main``: the sum over both directions of ``2 - 2 cos``, mean over images, in [0, 8]; and, for the log,
            ``collapse_ratio_main``: 1 minus the deviation of normalised targets times sqrt(D), 1 if all are equal.
        """
        first, second = (precise(self.predictor(z)) for z in online)
        goals = [precise(target) for target in targets]
        with torch.autocast(first.device.type, enabled=False):
            loss = regression(first, goals[1]) + regression(second, goals[0])
            unit = F.normalize(torch.stack(goals), dim=2)
            record("embeddings.main", unit)
            spread = unit.flatten(0, 1).std(0).mean()
            return {"loss_main": loss, "collapse_ratio_main": 1 - spread * first.shape[1] ** 0.5}

    def stuck_advice(self, term: str) -> str:
        """Returns the remedy for targets that stay equal."""
        return (
            "all targets are equal: the network has collapsed. Use larger batches or a lower learning rate, keep batch "
            "norm in projector and predictor, and start the momentum closer to 1"
        )
