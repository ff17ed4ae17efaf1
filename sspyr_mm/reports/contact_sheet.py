"""Contact sheet of views: regions with their cells, and the patches of both views."""

from collections.abc import Mapping

import cv2
import numpy as np
import torch

from sspyr_mm.models import PyramidAugment
from sspyr_mm.pyramid import GroupSpec

_SIDE = 168  # side of a tile, in pixels
_MARGIN = 6
_LABEL = 16  # height of a line of text


def draw_contact_sheet(augment: PyramidAugment, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Draws one row per image: for each group its regions, cells framed in colour, then the patches of each view.

    The frame of a patch has the colour of its cell, so that patch m of V and patch m of V' can be compared.

    Args:
        augment: Preprocessor that cuts the patches.
        inputs: Collated batch; see :class:`PyramidAugment`.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    patches = augment({"inputs": dict(inputs)})["inputs"]
    rows = []
    for image in range(len(inputs["seed"])):
        tiles = []
        for group in augment.spec.groups:
            tiles += _group_tiles(
                group, inputs[group.name][image].cpu().numpy(), _to_uint8(augment, patches[group.name][:, image])
            )
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows, axis=0)


def _to_uint8(augment: PyramidAugment, patches: torch.Tensor) -> np.ndarray:
    """Converts normalised patches (V, M, 3, P, P) back to (V, M, P, P, 3) uint8."""
    images = (patches * augment.std + augment.mean).clamp(0, 1) * 255
    return images.round().byte().permute(0, 1, 3, 4, 2).cpu().numpy()


def _group_tiles(group: GroupSpec, regions: np.ndarray, patches: np.ndarray) -> list[np.ndarray]:
    tiles = []
    for number, region in enumerate(regions):
        framed = region.copy()
        for cell in range(group.num_patches if group.grid > 1 else 0):
            top, left = (i * group.cell for i in divmod(cell, group.grid))
            corner = (left + group.cell - 2, top + group.cell - 2)
            cv2.rectangle(framed, (left + 1, top + 1), corner, _colour(cell, group), max(2, group.region // 100))
        shared = group.num_regions == 1
        tiles.append(_tile(framed, f"{group.name} region" + ("" if shared else f" {_view_name(number)}")))
    for number, view in enumerate(patches):
        tiles.append(_tile(_mosaic(group, view), f"{group.name} {_view_name(number)}"))
    return tiles


def _mosaic(group: GroupSpec, view: np.ndarray) -> np.ndarray:
    """Arranges the M patches (M, P, P, 3) of a view on their grid, each with its cell's frame."""
    frame = max(2, group.patch // 24) if group.grid > 1 else 0
    framed = [
        cv2.copyMakeBorder(p, frame, frame, frame, frame, cv2.BORDER_CONSTANT, value=_colour(m, group))
        for m, p in enumerate(view)
    ]
    rows = [np.concatenate(framed[i : i + group.grid], axis=1) for i in range(0, len(framed), group.grid)]
    return np.concatenate(rows, axis=0)


def _tile(image: np.ndarray, label: str) -> np.ndarray:
    tile = np.full((_SIDE + _LABEL + _MARGIN, _SIDE + _MARGIN, 3), 255, np.uint8)
    tile[_LABEL : _LABEL + _SIDE, :_SIDE] = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    cv2.putText(tile, label, (0, _LABEL - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile


def _view_name(number: int) -> str:
    return ("V", "V'")[number] if number < 2 else f"crop {number + 1}"


def _colour(cell: int, group: GroupSpec) -> tuple[int, int, int]:
    hue = round(180 * cell / group.num_patches)
    red, green, blue = cv2.cvtColor(np.array([[[hue, 220, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue
