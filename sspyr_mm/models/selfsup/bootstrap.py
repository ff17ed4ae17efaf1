"""BYOL: the target network's embedding of one view is predicted from the other view."""

from collections.abc import Mapping

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from sspyr_mm.models.selfsup.momentum_contrast import GROUP, Encoder, MomentumModel


@MODELS.register_module()
class Bootstrap(MomentumModel):
    """BYOL: bootstrap your own latent.

    The target network is the momentum encoder, which has no predictor. Each view is encoded separately, so
    that views do not share batch statistics.

    Args: those of :class:`MomentumModel`; the head is a :class:`BootstrapHead`.

    Source: BYOL, section 3; google-deepmind/deepmind-research ``byol_experiment.py``.
    """

    def loss(self, inputs: Mapping[str, Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """Computes the loss of one batch.

        Args:
            inputs: ``main``, patches (2, B, 1, 3, P, P).
            data_samples: Not used: the method needs no labels.

        Returns:
            See :meth:`BootstrapHead.loss`.
        """
        self.begin_step()
        views = [x.squeeze(1) for x in inputs[GROUP]]
        online = [self._project(self.trained, x) for x in views]
        with torch.no_grad():
            targets = [self._project(self.momentum, x) for x in views]
        return self.head.loss(online, targets)

    def _project(self, encoder: Encoder, images: Tensor) -> Tensor:
        return encoder["neck"](self.encode(images, encoder["backbone"]))
