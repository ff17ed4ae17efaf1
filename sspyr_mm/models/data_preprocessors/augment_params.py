"""Random parameters of patches, drawn on the host from one seed per image."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from sspyr_mm.pyramid import GroupSpec

# Uniform numbers per patch: offsets 2, flip, jitter, 4 strengths, 4 for their order, grey, blur, sigma.
_SLOTS = 15


@dataclass(frozen=True)
class AugmentConfig:
    """Distributions of the parameters; see :class:`PyramidAugment` for their meaning.

    Raises:
        ValueError: If a probability is not in [0, 1], a strength is negative, hue > 0.5, or sigma not positive.
    """

    flip_prob: float
    jitter_prob: float
    jitter: tuple[float, ...]
    gray_prob: float
    blur_prob: float
    blur_sigma: tuple[float, ...]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_prob") and not 0 <= value <= 1:
                raise ValueError(f"{field.name} must be in [0, 1], got {value}")
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise ValueError(
                "jitter must be four strengths >= 0 (brightness, contrast, saturation, hue <= 0.5), "
                f"got {self.jitter}; the paper's are (0.8, 0.8, 0.8, 0.2)"
            )
        if len(self.blur_sigma) != 2 or not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be (low, high) with 0 < low <= high, got {self.blur_sigma}")


@dataclass(frozen=True)
class PatchParams:
    """Augmentation parameters of N patches; all arrays have N rows.

    Args:
        offset_y: Top of the crop within its cell, in pixels, int64.
        offset_x: Left of the crop within its cell, in pixels, int64.
        flip: Mask of patches to flip horizontally.
        jitter: Mask of patches with colour jitter.
        factors: (N, 4) brightness, contrast and saturation factors and hue shift (in turns), float32.
        order: (N, 4) a permutation: ``order[n, k]`` is the operation (column of ``factors``) at step k.
        gray: Mask of patches to convert to greyscale.
        blur: Mask of patches to blur.
        sigma: Standard deviation of the blur, in pixels, float32.
        max_sigma: Upper bound of ``sigma``, which determines the width of the blur kernel.
    """

    offset_y: np.ndarray
    offset_x: np.ndarray
    flip: np.ndarray
    jitter: np.ndarray
    factors: np.ndarray
    order: np.ndarray
    gray: np.ndarray
    blur: np.ndarray
    sigma: np.ndarray
    max_sigma: float


def draw_params(seeds: Sequence[int], groups: Sequence[GroupSpec], config: AugmentConfig) -> dict[str, PatchParams]:
    """Draws the parameters of all patches of a batch. Those of an image depend only on its seed.

    Args:
        seeds: B seeds, one per image, >= 0.
        groups: Groups of the pyramid.
        config: Distributions of the parameters.

    Returns:
        Per group's name, parameters of V * B * M patches in this order.
    """
    counts = [g.num_views * g.num_patches for g in groups]
    uniform = np.stack([np.random.Generator(np.random.Philox(seed)).random((sum(counts), _SLOTS)) for seed in seeds])
    params = {}
    for group, drawn in zip(groups, np.split(uniform, np.cumsum(counts)[:-1], axis=1), strict=True):
        # (B, V, M, slots) -> (V * B * M, slots)
        per_view = drawn.reshape(len(seeds), group.num_views, group.num_patches, _SLOTS)
        params[group.name] = _to_params(per_view.swapaxes(0, 1).reshape(-1, _SLOTS), group.cell - group.patch, config)
    return params


def _to_params(u: np.ndarray, slack: int, config: AugmentConfig) -> PatchParams:
    """Converts uniform numbers (N, slots) to parameters; ``slack`` is cell size minus patch size, in pixels."""
    strength = np.asarray(config.jitter)
    low = np.array([*np.maximum(0.0, 1 - strength[:3]), -strength[3]])
    high = np.array([*(1 + strength[:3]), strength[3]])
    offsets = np.floor(u[:, :2] * (slack + 1)).astype(np.int64)
    sigma_low, sigma_high = config.blur_sigma
    return PatchParams(
        offset_y=offsets[:, 0],
        offset_x=offsets[:, 1],
        flip=u[:, 2] < config.flip_prob,
        jitter=u[:, 3] < config.jitter_prob,
        factors=(low + u[:, 4:8] * (high - low)).astype(np.float32),
        order=np.argsort(u[:, 8:12], axis=1),
        gray=u[:, 12] < config.gray_prob,
        blur=u[:, 13] < config.blur_prob,
        sigma=(sigma_low + u[:, 14] * (sigma_high - sigma_low)).astype(np.float32),
        max_sigma=float(sigma_high),
    )
