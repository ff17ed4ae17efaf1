"""Sheets of images: the views of a config, and the predictions of several networks."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from sspyr_mm.files import whole_file
from sspyr_mm.models import PyramidAugment
from sspyr_mm.views import GroupSpec

_VIEW_SIDE = 168  # of a tile, in pixels
_PREDICTION_SIDE = 240
_MARGIN = 6
_TRUTH = "_truth.jpg"


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes an image (height, width, 3) uint8 RGB atomically; its folder is created.

    Raises ValueError if OpenCV does not know the format, which the file extension sets, or the image is too large.
    """
    try:
        done, encoded = cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ValueError(f"{path}: images can't be written in this format; end the name with .png or .jpg") from error
    if not done:
        raise ValueError(f"{path}: an image of {image.shape[1]} x {image.shape[0]} px is too large for this format")
    with whole_file(path) as partial:
        partial.write_bytes(encoded.tobytes())


def draw_contact_sheet(augment: PyramidAugment, inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Draws one row per image: for each group its regions, cells framed in colour, then the patches of each view.

    The frame of a patch has the colour of its cell, so that patch m of V and patch m of V' can be compared. ``inputs``
    is a collated batch; see :class:`PyramidAugment`. The sheet is (height, width, 3) uint8 RGB.
    """
    return draw_views(augment, inputs, augment({"inputs": dict(inputs)})["inputs"], len(inputs["seed"]))


def draw_views(
    augment: PyramidAugment, inputs: Mapping[str, torch.Tensor], patches: Mapping[str, torch.Tensor], num_images: int
) -> np.ndarray:
    """Draws the sheet of the first images of a batch whose patches are known; see :func:`draw_contact_sheet`."""
    rows = []
    for image in range(min(num_images, len(inputs["seed"]))):
        tiles = []
        for group in augment.views.groups:
            regions = inputs[group.name][image].cpu().numpy()
            tiles += _group_tiles(group, regions, _to_uint8(augment, patches[group.name][:, image]))
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
        view_name = "" if group.num_regions == 1 else f" {_view_name(number)}"
        tiles.append(_tile(framed, f"{group.name} region{view_name}"))
    for number, view in enumerate(patches):
        tiles.append(_tile(_mosaic(group, view), f"{group.name} {_view_name(number)}"))
    return tiles


def _mosaic(group: GroupSpec, view: np.ndarray) -> np.ndarray:
    """Arranges the M patches (M, P, P, 3) of a view on their grid, each with its cell's frame."""
    frame = max(2, group.patch // 24) if group.grid > 1 else 0
    framed = [_pad(patch, frame, frame, frame, frame, _colour(m, group)) for m, patch in enumerate(view)]
    rows = [np.concatenate(framed[i : i + group.grid], axis=1) for i in range(0, len(framed), group.grid)]
    return np.concatenate(rows, axis=0)


def _tile(image: np.ndarray, label: str) -> np.ndarray:
    shown = cv2.resize(image, (_VIEW_SIDE, _VIEW_SIDE), interpolation=cv2.INTER_AREA)
    return _write(label, _pad(shown, 16, _MARGIN, 0, _MARGIN))


def _view_name(number: int) -> str:
    return ("V", "V'")[number] if number < 2 else f"crop {number + 1}"


def _colour(cell: int, group: GroupSpec) -> tuple[int, int, int]:
    hue = round(180 * cell / group.num_patches)
    red, green, blue = cv2.cvtColor(np.array([[[hue, 220, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def draw_prediction_sheet(folders: Mapping[str, str | os.PathLike]) -> np.ndarray:
    """Combines the images of :class:`PredictionImagesHook` in one sheet (height, width, 3) uint8 RGB.

    Args:
        folders: Name of a network -> folder of its drawn predictions.

    Raises:
        FileNotFoundError: If no image was drawn for all networks.
        ValueError: If an image cannot be read.
    """
    drawn = [{path.name for path in Path(folder).glob("*.jpg")} for folder in folders.values()]
    shared = set.intersection(*drawn) if drawn else set()
    stems = sorted(name.removesuffix(_TRUTH) for name in shared if name.endswith(_TRUTH))
    if not stems:
        raise FileNotFoundError(
            f"No image is drawn for all networks in {', '.join(map(str, folders.values()))}: the files were removed, "
            "or show different images"
        )
    first = next(iter(folders.values()))
    header = np.full((18, _PREDICTION_SIDE, 3), 255, np.uint8)
    rows = [_row([_write(name[-34:], header.copy()) for name in ("ground truth", *folders)])]
    for stem in stems:
        files = [Path(first, stem + _TRUTH), *(Path(f, f"{stem}.jpg") for f in folders.values())]
        rows.append(_row([_fit(_read(file)) for file in files]))
    return np.concatenate(rows, axis=0)


def _read(file: Path) -> np.ndarray:
    if (image := cv2.imread(str(file))) is None:
        raise ValueError(
            f"{file} cannot be read as an image: remove it; it is drawn again when the network is evaluated again"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _row(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Arranges tiles in a row, with white margins between them and below."""
    return np.concatenate([_pad(tile, 0, _MARGIN, 0, _MARGIN) for tile in tiles], axis=1)[:, :-_MARGIN]


def _fit(image: np.ndarray) -> np.ndarray:
    """Scales an image to a white square without cropping it."""
    factor = _PREDICTION_SIDE / max(image.shape[:2])
    height, width = (max(1, round(factor * side)) for side in image.shape[:2])
    shown = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    down, right = _PREDICTION_SIDE - height, _PREDICTION_SIDE - width
    return _pad(shown, down // 2, down - down // 2, right // 2, right - right // 2)


def _write(text: str, image: np.ndarray) -> np.ndarray:
    """Writes one line of text at the top left."""
    return cv2.putText(image, text, (0, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)


def _pad(
    image: np.ndarray, top: int, bottom: int, left: int, right: int, colour: tuple[int, int, int] = (255, 255, 255)
) -> np.ndarray:
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=colour)
