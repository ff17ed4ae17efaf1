"""Health of a pyramid: used prototypes, code entropy and spread of embeddings, per scale."""

import math
from dataclasses import dataclass

import torch
from mmengine.dataset import BaseDataset, default_collate
from torch import Tensor

from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import ScaleSpec


@dataclass(frozen=True)
class ScaleHealth:
    """State of one scale on a set of images. Entropies and cross-entropy are divided by ln K."""

    scale: str  # name
    num_samples: int  # N, number of patches of one view
    num_prototypes: int  # K
    used: int  # number of prototypes that are the largest entry of at least one code
    mean_entropy: float  # of the mean code: 1 means that all prototypes are used equally
    code_entropy: float  # mean over codes: 0 means one-hot, 1 uniform (nothing is learned)
    ce_ratio: float  # cross-entropy of the swapped prediction: 1 means that nothing is learned
    mean_cosine: float  # between embeddings of different patches: 1 means total collapse

    @property
    def is_ill(self) -> bool:
        """Whether nothing is learned (uniform codes, or equal embeddings), or most prototypes are unused."""
        can_be_used = min(self.num_prototypes, 2 * self.num_samples)
        return self.code_entropy > 0.9 or self.mean_cosine > 0.97 or self.used < can_be_used / 10


@torch.no_grad()
def measure_health(
    model: SSPRL, dataset: BaseDataset, *, num_images: int = 512, batch_size: int = 64
) -> list[ScaleHealth]:
    """Embeds augmented views of images, computes all their codes in one problem, and returns the health of each scale.

    Args:
        model: Trained model; it is set to evaluation mode.
        dataset: Data set whose pipeline ends in ``PackPyramidInputs``.
        num_images: Maximum number of images, evenly spread over the set.
        batch_size: Images per batch.
    """
    if not isinstance(model, SSPRL):
        raise ValueError(
            f"health measures prototypes, which {type(model).__name__} does not have: measure its features with "
            "`python -m sspyr_mm probe`"
        )
    model.eval()
    count = min(num_images, len(dataset))
    indices = torch.linspace(0, len(dataset) - 1, count).long().tolist()
    parts = []
    for start in range(0, count, batch_size):
        batch = default_collate([dataset[i] for i in indices[start : start + batch_size]])
        parts.append(model.embed(model.data_preprocessor(batch)["inputs"]))
    embeddings = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
    return [_scale_health(model, scale, embeddings[scale.name].flatten(1, 2)) for scale in model.pyramid.scales]


def _scale_health(model: SSPRL, scale: ScaleSpec, z: Tensor) -> ScaleHealth:
    """Computes the health of one scale from its embeddings (2, N, D)."""
    scores = model.head.prototypes_of(scale)(z)
    codes = torch.stack(model.head.assigner.assign_many(list(scores)))
    log_p = torch.log_softmax(scores / model.head.temperature, dim=-1)
    log_k = max(math.log(scale.num_prototypes), 1e-12)
    both, num_samples = codes.flatten(0, 1), z.shape[1]
    # The sum of all pairwise products is the square of the sum; the N diagonal ones are 1.
    total = z[0].sum(0).square().sum().item()
    return ScaleHealth(
        scale=scale.name,
        num_samples=num_samples,
        num_prototypes=scale.num_prototypes,
        used=len(both.argmax(1).unique()),
        mean_entropy=float(torch.special.entr(both.mean(0)).sum()) / log_k,
        code_entropy=float(torch.special.entr(both).sum(1).mean()) / log_k,
        ce_ratio=float(-(codes * log_p.flip(0)).sum(-1).mean()) / log_k,
        mean_cosine=(total - num_samples) / max(1, num_samples * (num_samples - 1)),
    )
