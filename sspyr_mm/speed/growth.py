"""Steps of growing size: more scales, more images, more prototypes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS

from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import PyramidSpec

SCALES = {
    "s0": dict(region=224, patch=224, num_prototypes=300, alpha=1.0),
    "s1": dict(grid=2, region=314, patch=112, num_prototypes=150, alpha=0.25, beta=0.25),
    "s2": dict(grid=3, region=383, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
    "s3": dict(grid=4, region=448, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
    "s4": dict(grid=5, region=560, patch=96, num_prototypes=150, alpha=0.25, beta=0.25),
}
"""The paper's three scales, and two finer ones: 1, 4, 9, 16 and 25 patches a view."""


def grown_pyramid(num_scales: int, prototypes: dict[str, int] | None = None) -> dict[str, Any]:
    """The first of :data:`SCALES`.

    Args:
        num_scales: How many.
        prototypes: Per scale's name, how many in place of its own.
    """
    pyramid = {name: dict(SCALES[name]) for name in list(SCALES)[:num_scales]}
    for name, count in (prototypes or {}).items():
        pyramid[name]["num_prototypes"] = count
    return pyramid


def pixels(pyramid: PyramidSpec | Mapping[str, Any]) -> int:
    """Pixels the encoder sees of an image.

    Args:
        pyramid: Views, patches and their sides: a spec or its config.
    """
    groups = PyramidSpec.from_config(pyramid).groups
    return sum(g.num_views * g.num_patches * g.patch**2 for g in groups)


def build_grown(model: Any, pyramid: dict[str, Any]) -> SSPRL:
    """A config's backbone and neck with another pyramid, in training mode, for one process.

    Args:
        model: ``model`` of a pre-training config.
        pyramid: Its scales.
    """
    built = MODELS.build({**model, "pyramid": pyramid})
    return revert_sync_batchnorm(built).train()


def step_on_noise(model: SSPRL, batch_size: int, device: torch.device) -> Callable[[], object]:
    """Forward and backward pass on patches that are on the device already.

    Args:
        model: Is moved to the device.
        batch_size: Images.
        device: Where.
    """
    model = model.to(device)
    patches = {
        g.name: torch.randn(
            g.num_views, batch_size, g.num_patches, 3, g.patch, g.patch, device=device
        )
        for g in model.pyramid.groups
    }
    return partial(_step, model, patches)


def _step(model: SSPRL, patches: dict[str, torch.Tensor]) -> None:
    model.zero_grad()
    losses = model.loss(patches)
    torch.stack([v for k, v in losses.items() if k.startswith("loss")]).sum().backward()
