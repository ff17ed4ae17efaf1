"""Sheet of predictions: one row per test image; columns for the ground truth and every network."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

_SIDE = 240  # side of a tile, in pixels
_MARGIN = 6
_LABEL = 18  # height of a line of text
_TRUTH = "_truth.jpg"


def draw_prediction_sheet(folders: Mapping[str, str | os.PathLike]) -> np.ndarray:
    """Combines the images of :class:`PredictionImagesHook` in one sheet.

    Args:
        folders: Name of a network -> folder of its drawn predictions.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        FileNotFoundError: If no image was drawn for all networks.
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
    rows = [_row([_header(name) for name in ("ground truth", *folders)])]
    for stem in stems:
        files = [Path(first, stem + _TRUTH), *(Path(f, f"{stem}.jpg") for f in folders.values())]
        rows.append(_row([_fit(_read(file)) for file in files]))
    return np.concatenate(rows, axis=0)


def _read(file: Path) -> np.ndarray:
    if (image := cv2.imread(str(file))) is None:
        raise ValueError(
            f"{file} cannot be read as an image: remove it; it is drawn again when the result is measured again"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _row(tiles: Sequence[np.ndarray]) -> np.ndarray:
    space = np.full((tiles[0].shape[0], _MARGIN, 3), 255, np.uint8)
    parts = [part for tile in tiles for part in (tile, space)]
    row = np.concatenate(parts[:-1], axis=1)
    return np.concatenate([row, np.full((_MARGIN, row.shape[1], 3), 255, np.uint8)], axis=0)


def _fit(image: np.ndarray) -> np.ndarray:
    """Draws the whole image on a white square."""
    factor = _SIDE / max(image.shape[:2])
    height, width = (max(1, round(factor * side)) for side in image.shape[:2])
    shown = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    tile = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    tile[top : top + height, left : left + width] = shown
    return tile


def _header(text: str) -> np.ndarray:
    tile = np.full((_LABEL, _SIDE, 3), 255, np.uint8)
    cv2.putText(tile, text[-34:], (0, _LABEL - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
