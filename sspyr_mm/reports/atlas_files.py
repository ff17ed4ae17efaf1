"""Files of an atlas: a table of all cells, and a figure of the nearest cells of prototypes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import Compose
from numpy.typing import NDArray

from sspyr_mm.files import whole_file
from sspyr_mm.reports.atlas import ScaleAtlas

_TILE = 96
"""Side of a tile of the figure, in pixels."""


def write_table(path: str | os.PathLike[str], atlas: Sequence[ScaleAtlas], paths: Sequence[str]) -> None:
    """Writes a row per cell as Parquet: image, scale, cell, its box in pixels, prototype, score, margin."""
    import pyarrow as pa
    from pyarrow import parquet

    names = pa.array([os.fsencode(one).decode(errors="replace") for one in paths])
    tables = []
    for part in atlas:
        rows = np.arange(len(part.prototype))
        columns = {
            "image": pa.DictionaryArray.from_arrays(pa.array(part.image_of(rows).astype(np.int32)), names),
            "scale": pa.array([part.scale]).take(pa.array(np.zeros(len(rows), np.int32))),
            "cell": (rows % part.num_cells).astype(np.int16),
            **{name: part.box[:, i] for i, name in enumerate(("left", "top", "right", "bottom"))},
            "prototype": part.prototype,
            "score": part.score,
            "margin": part.margin,
        }
        tables.append(pa.table(columns))
    with whole_file(path) as partial:
        parquet.write_table(pa.concat_tables(tables).unify_dictionaries(), partial, compression="zstd")


def write_figure(
    out: str | os.PathLike[str],
    atlas: Sequence[ScaleAtlas],
    paths: Sequence[str],
    *,
    decoding: Mapping[str, Any] | None = None,
    num_prototypes: int = 8,
    num_cells: int = 8,
) -> list[Path]:
    """Draws the cells nearest to the most used prototypes of every scale, as ``figure.png`` and ``figure.pdf``.

    A row is a prototype, with its share of all cells; a tile shows the cell as the network sees it, of another image
    each. Source: figure A1 of the paper.

    Args:
        out: Folder.
        atlas: Scales.
        paths: Image files.
        decoding: Options of ``LoadRGBImage`` of the training.
        num_prototypes: Rows per scale.
        num_cells: Tiles per row.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    load = Compose([dict(type="mmpretrain.LoadRGBImage", skip_broken=False, **(decoding or {}))])
    size = (len(atlas) * (num_cells + 1.5) * 0.5, (num_prototypes + 0.6) * 0.5)
    figure, axes = plt.subplots(1, len(atlas), figsize=size, squeeze=False, layout="constrained")
    for axis, part in zip(axes[0], atlas, strict=True):
        usage = part.usage()
        chosen = np.argsort(-usage, kind="stable")[:num_prototypes]
        chosen = chosen[usage[chosen] > 0]
        sheet = np.full((len(chosen) * _TILE, num_cells * _TILE, 3), 255, np.uint8)
        for row, prototype in enumerate(chosen):
            for column, cell in enumerate(part.nearest(int(prototype), num_cells)):
                image = load({"img_path": paths[int(part.image_of(cell))]})["img"]
                tile = sheet[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE]
                tile[2:-2, 2:-2] = cut(image, part.box[cell], _TILE - 4)
        axis.imshow(sheet)
        axis.set_title(f"{part.scale}: {np.count_nonzero(usage)} of {part.num_prototypes} prototypes used", fontsize=8)
        labels = [f"{prototype} ({100 * usage[prototype] / usage.sum():.1f} %)" for prototype in chosen]
        axis.set_yticks((np.arange(len(chosen)) + 0.5) * _TILE, labels, fontsize=6)
        axis.set_xticks([])
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    files = [Path(out, f"figure.{kind}") for kind in ("png", "pdf")]
    for file in files:
        with whole_file(file) as partial:
            figure.savefig(partial, dpi=192, format=file.suffix[1:])
    plt.close(figure)
    return files


def cut(image: NDArray, box: NDArray, side: int) -> NDArray:
    """Cuts a box (left, top, right, bottom) from an image (H, W, 3), resized to a square."""
    left, top, right, bottom = (round(float(x)) for x in box)
    top, left = min(top, image.shape[0] - 1), min(left, image.shape[1] - 1)  # a box may be smaller than a pixel
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if part.shape[0] > side else cv2.INTER_LINEAR)
