"""A training step like that of the official code, on the same network; for comparison only.

Written from a description of that code: one Sinkhorn per view and scale, each with its own collectives; losses view
by view; an optimizer that reads two norms per parameter from the device; every loss read after the step.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import NUM_VIEWS, PyramidSpec


class OfficialStep:
    """Trains a network with per-view loops.

    Args:
        model: Network with a single pyramid without multi-crops; its backbone, projectors and prototypes are used.
        epsilon: Regularisation of Sinkhorn.
        temperature: Temperature of the predictions.
        lr: Learning rate.
        precision: Context of the forward pass; losses and codes are float32.
    """

    def __init__(
        self,
        model: SSPRL,
        *,
        epsilon: float = 0.05,
        temperature: float = 0.1,
        lr: float = 0.1,
        precision: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.model = model
        self.epsilon = epsilon
        self.temperature = temperature
        self.precision = precision
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-6)

    def __call__(self, patches: Mapping[str, Tensor]) -> list[float]:
        """Runs one step.

        Args:
            patches: Patches as the encoder sees them, (V, B, M, 3, P, P) by scale name.

        Returns:
            Losses as numbers of the host.
        """
        self.model.head.normalize_()
        with self.precision():
            embeddings = self.model.embed(patches)
        losses: list[Tensor] = []
        global_codes: list[Tensor] = []
        for scale in self.model.pyramid.scales:
            z = embeddings[scale.name].flatten(1, 2).float()
            scores = [self.model.head.prototypes_of(scale)(view) for view in z]
            codes = [self._sinkhorn(view.detach()) for view in scores]
            own = [
                self._cross_entropy(codes[view], scores[other])
                for view in range(NUM_VIEWS)
                for other in range(NUM_VIEWS)
                if other != view
            ]
            losses.append(scale.alpha * torch.stack(own).mean())
            if scale.scale_idx == 0:
                global_codes = codes
            elif scale.name in self.model.head.correlation:
                learner = self.model.head.correlation[scale.name]
                shape = embeddings[scale.name].shape[1:3]
                predicted = [learner(view.unflatten(0, shape)) for view in scores]
                cross = [-(q * p).sum(1).mean() for p in predicted for q in global_codes]
                losses.append(scale.beta * torch.stack(cross).mean())
        self.optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        self._adapt_rates()
        self.optimizer.step()
        return [loss.item() for loss in losses]

    def _cross_entropy(self, codes: Tensor, scores: Tensor) -> Tensor:
        return -(codes * F.log_softmax(scores / self.temperature, dim=1)).sum(1).mean()

    @torch.no_grad()
    def _sinkhorn(self, scores: Tensor) -> Tensor:
        q = torch.exp((scores - scores.max()) / self.epsilon).t()
        num_prototypes, num_samples = q.shape
        q /= _sum_over_ranks(q.sum())
        for _ in range(3):
            q /= _sum_over_ranks(q.sum(1, keepdim=True)) * num_prototypes
            q /= q.sum(0, keepdim=True) * num_samples
        return (q * num_samples).t()

    def _adapt_rates(self, trust: float = 0.001, decay: float = 1e-6) -> None:
        for param in self.model.parameters():
            if param.grad is None:
                continue
            weight, gradient = param.norm(), param.grad.norm()
            if weight != 0 and gradient != 0:  # waits for the device, twice
                param.grad.mul_(trust * weight / (gradient + decay * weight + 1e-8))


def _sum_over_ranks(value: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def stack_views(batch: Sequence[Sequence[Tensor]], spec: PyramidSpec) -> dict[str, Tensor]:
    """Stacks the patches of images by scale.

    Args:
        batch: Outputs of :class:`~pillow_views.PillowPipeline`.
        spec: Pyramid.

    Returns:
        Patches (V, B, M, 3, P, P) by scale name.
    """
    found, start = {}, 0
    for scale in spec.scales:
        count = NUM_VIEWS * scale.num_patches
        images = torch.stack([torch.stack(list(image[start : start + count])) for image in batch])
        found[scale.name] = images.unflatten(1, (NUM_VIEWS, scale.num_patches)).transpose(0, 1)
        start += count
    return found
