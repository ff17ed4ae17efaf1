"""Colour operations and blur of a batch of patches, each with its own parameters.

Patches are (N, 3, H, W) float32 RGB in [0, 1] throughout. Each operation equals torchvision's functional one of the
same name at the same parameters.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sspyr_mm.models.data_preprocessors.augment_params import PatchParams

# ITU-R 601 luma, rounded as in torchvision and PIL.
LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue."""
Operation: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Step(NamedTuple):
    """One operation on a subset of the patches, chosen on the host to avoid synchronisation.

    Args:
        name: Key of :func:`operations`.
        rows: (n,) indices of the patches, int64.
        values: (n,) parameter of each patch, float32.
    """

    name: str
    rows: Any
    values: Any


def list_steps(params: PatchParams) -> list[Step]:
    """Lists the steps of :func:`augment`: colour jitter in each patch's own order, greyscale, blur and solarisation.

    Args:
        params: Parameters of the patches.

    Returns:
        Steps with at least one patch; arrays on the host.
    """
    chosen = [
        (name, params.jitter & (params.order[:, turn] == column), params.factors[:, column])
        for turn in range(len(_JITTER))
        for column, name in enumerate(_JITTER)
    ]
    chosen += [("gray", params.gray, params.sigma), ("blur", params.blur, params.sigma)]
    chosen += [("solarize", params.solarize, params.sigma)]
    return [Step(name, np.flatnonzero(on), values[on]) for name, on, values in chosen if on.any()]


def operations(max_sigma: float, *, compiled: bool = False) -> dict[str, Operation]:
    """Returns operations by name, each a function of (n, 3, H, W) patches and (n, 1, 1, 1) parameters.

    Args:
        max_sigma: Upper bound of the blur's sigma, in pixels.
        compiled: Whether ``torch.compile`` fuses each into one kernel, the same for any number and size of patches.
    """
    blur = partial(gaussian_blur, radius=math.ceil(3 * max_sigma))
    found: dict[str, Operation] = {**_JITTER, "gray": turn_gray, "blur": blur, "solarize": solarize}
    if not compiled:
        return found
    return {name: torch.compile(f, dynamic=True, fullgraph=True) for name, f in found.items()}


def augment(patches: Tensor, steps: Sequence[Step], functions: Mapping[str, Operation]) -> Tensor:
    """Applies the steps.

    Args:
        patches: (N, 3, H, W), changed in place.
        steps: Output of :func:`list_steps`, as tensors on the patches' device.
        functions: Output of :func:`operations`.

    Returns:
        (N, 3, H, W).
    """
    for step in steps:
        done = functions[step.name](patches.index_select(0, step.rows), step.values.view(-1, 1, 1, 1))
        patches.index_copy_(0, step.rows, done)
    return patches


def to_gray(patches: Tensor) -> Tensor:
    """Computes the luma.

    Args:
        patches: (N, 3, H, W).

    Returns:
        (N, 1, H, W).
    """
    red, green, blue = patches.unbind(1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2]).unsqueeze(1)


def turn_gray(patches: Tensor, _: Tensor) -> Tensor:
    """Returns the luma in all channels; has no parameter."""
    return to_gray(patches).expand_as(patches)


def solarize(patches: Tensor, _: Tensor) -> Tensor:
    """Inverts all values of at least 0.5; has no parameter."""
    return torch.where(patches >= 0.5, 1 - patches, patches)


def adjust_brightness(patches: Tensor, factor: Tensor) -> Tensor:
    """Multiplies by ``factor`` (N, 1, 1, 1) >= 0."""
    return (patches * factor).clamp_(0, 1)


def adjust_contrast(patches: Tensor, factor: Tensor) -> Tensor:
    """Blends with the mean luma of the patch; ``factor`` (N, 1, 1, 1) >= 0."""
    mean = to_gray(patches).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, patches, factor).clamp_(0, 1)


def adjust_saturation(patches: Tensor, factor: Tensor) -> Tensor:
    """Blends with the grey patch; ``factor`` (N, 1, 1, 1) >= 0."""
    return torch.lerp(to_gray(patches), patches, factor).clamp_(0, 1)


def adjust_hue(patches: Tensor, shift: Tensor) -> Tensor:
    """Rotates the hue by ``shift`` (N, 1, 1, 1) turns, in [-0.5, 0.5], in HSV.

    With hue h in sextants, value v and chroma c, a channel is ``v - c * clamp(min(k, 4 - k), 0, 1)`` where
    ``k = (n + h) mod 6`` and n is 5, 3, 1 for red, green, blue.
    """
    value, minimum = patches.amax(1), patches.amin(1)
    chroma = value - minimum
    red, green, blue = patches.unbind(1)
    safe = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    offsets = torch.arange(5.0, 0.0, -2.0, device=patches.device).view(1, 3, 1, 1)  # 5, 3, 1
    k = (hue.unsqueeze(1) + 6 * shift + offsets).remainder_(6)
    weight = torch.minimum(k, 4 - k).clamp_(0, 1)
    return (value.unsqueeze(1) - chroma.unsqueeze(1) * weight).clamp_(0, 1)


_JITTER: dict[str, Operation] = {  # in the order of the columns of PatchParams.factors
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def gaussian_blur(patches: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """Blurs each patch with its own sigma; borders are reflected.

    Convolution routines are slow for kernels that differ per patch. With a banded (W, W) matrix per patch, which
    includes the reflection, each axis is one batched matrix product.

    Args:
        patches: (N, 3, H, W), H and W > radius.
        sigma: (N, 1, 1, 1) standard deviations in pixels, > 0.
        radius: Half width of the kernel, which has ``2 * radius + 1`` taps.

    Returns:
        (N, 3, H, W).
    """
    num, channels, height, width = patches.shape
    sigma = sigma.view(-1)
    along_x = _blur_matrix(sigma, width, radius)
    along_y = along_x if height == width else _blur_matrix(sigma, height, radius)
    blurred = torch.bmm(patches.reshape(num, channels * height, width), along_x.transpose(1, 2))
    columns = blurred.view(num, channels, height, width).transpose(1, 2).reshape(num, height, channels * width)
    return torch.bmm(along_y, columns).view(num, height, channels, width).transpose(1, 2)


def _blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """Returns (N, size, size): row i is the normalised kernel around i, outside weights reflected into the patch."""
    radius = min(radius, size - 1)
    taps = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    row = torch.arange(size, device=sigma.device)[:, None]
    source = (size - 1) - ((size - 1) - (row + taps).abs()).abs()
    target = (row * size + source).view(-1)
    weights = kernel[:, None].expand(-1, size, -1).reshape(sigma.shape[0], -1)
    matrix = sigma.new_zeros(sigma.shape[0], size * size)
    return matrix.index_add_(1, target, weights).view(-1, size, size)
