"""Random parameters of patches, drawn on the host from one seed per image."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from sspyr_mm.views import AugmentSpec, GroupSpec

# Uniform numbers per patch: offsets 2, flip, jitter, 4 strengths, 4 for their order, grey, blur, sigma.
_SLOTS = 15


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
        solarize: Mask of patches to solarise.
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
    solarize: np.ndarray
    sigma: np.ndarray
    max_sigma: float


def draw_params(seeds: Sequence[int], groups: Sequence[GroupSpec], config: AugmentSpec) -> dict[str, PatchParams]:
    """Draws the parameters of all patches of a batch. Those of an image depend only on its seed.

    Args:
        seeds: B seeds, one per image, >= 0.
        groups: Groups of the pyramid.
        config: Distributions of the parameters.

    Returns:
        Per group's name, parameters of V * B * M patches in this order.
    """
    counts = [g.num_views * g.num_patches for g in groups]
    specs = [group.augment_of(config) for group in groups]
    max_sigma = max(spec.blur_sigma[1] for views in specs for spec in views)
    uniform = np.stack([np.random.Generator(np.random.Philox(seed)).random((sum(counts), _SLOTS)) for seed in seeds])
    # A stream of its own: drawing from the first one would change the other numbers of every run.
    further: np.ndarray = np.ones((len(seeds), sum(counts), 1))
    if any(spec.solarize_prob for views in specs for spec in views):
        further = np.stack([_stream(seed, 1).random((sum(counts), 1)) for seed in seeds])
    numbers: list[np.ndarray] = np.split(np.concatenate([uniform, further], axis=2), np.cumsum(counts)[:-1], axis=1)
    params = {}
    for group, views, drawn in zip(groups, specs, numbers, strict=True):
        # (B, V, M, slots) -> (V, B * M, slots)
        shape = (len(seeds), group.num_views, group.num_patches, drawn.shape[-1])
        per_view = drawn.reshape(shape).swapaxes(0, 1).reshape(group.num_views, -1, drawn.shape[-1])
        slack = group.cell - group.patch
        params[group.name] = _joined([_to_params(u, slack, v, max_sigma) for u, v in zip(per_view, views, strict=True)])
    return params


def draw_cells(seeds: Sequence[int], group: GroupSpec) -> tuple[np.ndarray, np.ndarray]:
    """Draws the order of a jigsaw's cells, and the place of a patch in each. Those of an image depend on its seed only.

    Args:
        seeds: B seeds, one per image, >= 0.
        group: Group of a jigsaw.

    Returns:
        Top and left of V * B * M patches in their regions, in this order, in pixels, int64.
    """
    shape = (group.num_views, group.num_patches, 3)
    drawn = np.stack([_stream(seed, 2).random(shape) for seed in seeds], axis=1)  # (V, B, M, 3)
    cell = drawn[..., 0].argsort(axis=2)
    offsets = np.floor(drawn[..., 1:] * (group.cell - group.patch + 1)).astype(np.int64)
    top = cell // group.grid * group.cell + offsets[..., 0]
    left = cell % group.grid * group.cell + offsets[..., 1]
    return top.reshape(-1), left.reshape(-1)


def _stream(seed: int, number: int) -> np.random.Generator:
    """Returns a generator whose numbers are independent of those of the seed's first one."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(number,))))


def _joined(parts: Sequence[PatchParams]) -> PatchParams:
    """Concatenates the parameters of all views."""
    arrays = {f.name: [getattr(part, f.name) for part in parts] for f in fields(PatchParams) if f.name != "max_sigma"}
    return PatchParams(
        **{name: np.concatenate(values) for name, values in arrays.items()}, max_sigma=parts[0].max_sigma
    )


def _to_params(u: np.ndarray, slack: int, config: AugmentSpec, max_sigma: float) -> PatchParams:
    """Converts uniform numbers (N, slots + 1) to parameters; ``slack`` is cell size minus patch size, in pixels."""
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
        solarize=u[:, 15] < config.solarize_prob,
        sigma=(sigma_low + u[:, 14] * (sigma_high - sigma_low)).astype(np.float32),
        max_sigma=float(max_sigma),
    )
