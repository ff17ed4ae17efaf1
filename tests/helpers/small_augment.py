"""What the augmentation's tests cut: scales, cells and local crops as the paper has them, at a tenth of the pixels."""

import torch

from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.views import AugmentSpec

PYRAMID = dict(
    s0=dict(region=24, patch=24, num_prototypes=3, alpha=1.0, multi_crop=dict(num_views=3, patch=14)),
    s1=dict(region=41, grid=2, patch=16, num_prototypes=3, alpha=0.25, beta=0.25),
    s2=dict(region=47, grid=3, patch=14, num_prototypes=3, alpha=0.25, beta=0.25, shared_region=False),
)
SPEC = PyramidSpec.from_config(PYRAMID)
PAPER = AugmentSpec(0.5, 0.8, (0.8, 0.8, 0.8, 0.2), 0.2, 0.5, (0.1, 2.0))


def regions(batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        g.name: torch.randint(0, 256, (batch, g.num_regions, g.region, g.region, 3), generator=generator).to(
            torch.uint8
        )
        for g in SPEC.groups
    }


def batch_of(seeds, seed=0):
    inputs = regions(len(seeds), seed)
    return dict(inputs={**inputs, "seed": torch.tensor(seeds)}, data_samples=["kept"])
