"""Files of an atlas: a table of all cells, and a figure of the nearest cells of prototypes."""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sspyr_mm.datasets.workers import answer_to_parent_only
from sspyr_mm.files import whole_file
from sspyr_mm.reports.atlas.atlas_map import ScaleMap
from sspyr_mm.reports.atlas.scale_atlas import ImageReader, ScaleAtlas

_TILE = 96
"""Side of a tile of the figure, in pixels."""
_THUMBNAIL = 64
"""Side of a thumbnail of the table, in pixels."""

Box = tuple[float, ...]


def write_table(
    path: str | os.PathLike[str],
    atlas: Sequence[ScaleAtlas],
    paths: Sequence[str],
    maps: Mapping[str, ScaleMap] | None = None,
    *,
    decoding: Mapping[str, Any] | None = None,
    num_workers: int = 0,
) -> None:
    """Writes a row per cell as Parquet; docs/atlas.md describes the columns.

    Args:
        path: File.
        atlas: Scales.
        paths: Image files.
        maps: By scale, see :func:`sspyr_mm.reports.atlas.atlas_map.compute_map`; cells that are not on it have nulls.
        decoding: Options of ``LoadRGBImage`` of the training, for the thumbnails of the cells on a map.
        num_workers: Processes that decode.
    """
    import pyarrow as pa
    from pyarrow import parquet

    names = pa.array([os.fsencode(one).decode(errors="replace") for one in paths])
    thumbnails = _thumbnails(atlas, paths, maps or {}, decoding or {}, num_workers)
    tables = []
    start = 0
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
        points = (maps or {}).get(part.scale)
        at = np.full(len(rows), -1)
        if points is not None:
            at[points.rows] = np.arange(len(points.rows))
        take = pa.array(np.maximum(at, 0), mask=at < 0)
        on_map = {
            "x": pa.array([] if points is None else points.place[:, 0], pa.float32()),
            "y": pa.array([] if points is None else points.place[:, 1], pa.float32()),
            "neighbours": pa.array([] if points is None else list(points.neighbours + start), pa.list_(pa.int64())),
            "thumbnail": pa.array(thumbnails[part.scale], pa.binary()),
        }
        tables.append(pa.table({**columns, **{name: values.take(take) for name, values in on_map.items()}}))
        start += len(rows)
    with whole_file(path) as partial:
        parquet.write_table(pa.concat_tables(tables).unify_dictionaries(), partial, compression="zstd")


def _thumbnails(
    atlas: Sequence[ScaleAtlas],
    paths: Sequence[str],
    maps: Mapping[str, ScaleMap],
    decoding: Mapping[str, Any],
    num_workers: int,
) -> dict[str, list[bytes]]:
    """Returns a JPEG file per point of each map."""
    boxes: dict[int, list[Box]] = {}
    owners: dict[int, list[str]] = {}
    for part in atlas:
        for row in maps[part.scale].rows.tolist() if part.scale in maps else ():
            image = int(part.image_of(row))
            boxes.setdefault(image, []).append(tuple(part.box[row].tolist()))
            owners.setdefault(image, []).append(part.scale)
    found: dict[str, list[bytes]] = {part.scale: [] for part in atlas}
    cuts = cut_images(paths, boxes, decoding, tile=_THUMBNAIL, side=1, num_workers=num_workers)
    for image, (_, tiles, _) in zip(sorted(boxes), cuts, strict=True):
        for scale, tile in zip(owners[image], tiles, strict=True):
            file = io.BytesIO()
            Image.fromarray(np.asarray(tile)).save(file, "JPEG", quality=85)
            found[scale].append(file.getvalue())
    return found


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

    read = ImageReader(decoding or {})
    size = (len(atlas) * (num_cells + 1.5) * 0.5, (num_prototypes + 0.6) * 0.5)
    figure, axes = plt.subplots(1, len(atlas), figsize=size, squeeze=False, layout="constrained")
    for axis, part in zip(axes[0], atlas, strict=True):
        usage = part.usage()
        chosen = np.argsort(-usage, kind="stable")[:num_prototypes]
        chosen = chosen[usage[chosen] > 0]
        sheet = np.full((len(chosen) * _TILE, num_cells * _TILE, 3), 255, np.uint8)
        for row, prototype in enumerate(chosen):
            for column, cell in enumerate(part.nearest(int(prototype), num_cells)):
                image = read(paths[int(part.image_of(cell))])
                tile = sheet[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE]
                tile[2:-2, 2:-2] = cut(image, part.box[cell], _TILE - 4)
        axis.imshow(sheet)
        title = f"{part.scale}: {np.count_nonzero(usage)} of {part.num_prototypes} prototypes used"
        axis.set_title(title, fontsize=8)
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


def cut_images(
    paths: Sequence[str],
    boxes: Mapping[int, Sequence[Box]],
    decoding: Mapping[str, Any],
    *,
    tile: int,
    side: int,
    num_workers: int,
) -> Iterable[tuple[NDArray, list[NDArray], tuple[int, int]]]:
    """Decodes images in the order of their indices, the keys of ``boxes``.

    Args:
        paths: Image files.
        boxes: By image, boxes (left, top, right, bottom) in pixels.
        decoding: Options of ``LoadRGBImage`` of the training.
        tile: Side of a tile in pixels.
        side: Longer side of the reduced copy in pixels.
        num_workers: Processes that decode.

    Yields:
        Per image: a reduced copy (h, w, 3), a square tile (tile, tile, 3) per box, and width and height of the image.
    """
    return DataLoader(
        _Cuts(paths, boxes, decoding, tile, side),
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=answer_to_parent_only,
    )


class _Cuts(Dataset):
    def __init__(
        self,
        paths: Sequence[str],
        boxes: Mapping[int, Sequence[Box]],
        decoding: Mapping[str, Any],
        tile: int,
        side: int,
    ) -> None:
        self.paths, self.boxes, self.images = list(paths), boxes, sorted(boxes)
        self.tile, self.side = tile, side
        self.read = ImageReader(decoding)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[NDArray, list[NDArray], tuple[int, int]]:
        number = self.images[index]
        image = self.read(self.paths[number])
        tiles = [cut(image, np.asarray(box), self.tile) for box in self.boxes[number]]
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA), tiles, (width, height)


def cut(image: NDArray, box: NDArray, side: int) -> NDArray:
    """Cuts a box (left, top, right, bottom) from an image (H, W, 3), resized to a square."""
    left, top, right, bottom = (round(float(x)) for x in box)
    top, left = min(top, image.shape[0] - 1), min(left, image.shape[1] - 1)  # a box may be smaller than a pixel
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    return cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA if part.shape[0] > side else cv2.INTER_LINEAR)
