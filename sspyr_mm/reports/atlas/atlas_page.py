"""Page of an atlas: prototypes with their nearest cells, the images these are from, and links between scales.

It opens from the disk without a server or network. Images are packed in sheets, which the browser loads as they come
into view.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sspyr_mm.files import printable
from sspyr_mm.models import SSPRL
from sspyr_mm.reports.atlas.atlas_files import cut_images
from sspyr_mm.reports.atlas.atlas_map import ScaleMap
from sspyr_mm.reports.atlas.scale_atlas import ScaleAtlas

_FOLDER = "page"
_TILE = 64
"""Side of a cell on the page, in pixels."""
_ROWS = 32
"""Prototypes per sheet of cells."""
_SIDE, _COLUMNS = 192, 8
"""Longer side of a source image in pixels, and source images per side of their sheet."""
_LINKS = 6
"""Finer prototypes that are shown with one of scale 0."""
_QUALITY = 85
_INSET = 0.95
"""Share of the map's frame that points take: those at the edge are shown whole."""
_GLOBAL = "window.ATLAS"
_DATA = f"{_GLOBAL} = "
_ASSETS = Path(__file__).parent / "site"
_COPIED = ("atlas.css", "atlas.js", "map.js", "locate.js", "scatterplot.js")


def correlations(model: SSPRL) -> dict[str, NDArray]:
    """Returns the weights (K_0, K_s) of the correlation learner of every finer scale that has one."""
    learners = model.head.correlation.items()
    return {name: learner.linear.weight.detach().float().cpu().numpy() for name, learner in learners}


def write_page(
    out: str | os.PathLike[str],
    atlas: Sequence[ScaleAtlas],
    paths: Sequence[str],
    weights: Mapping[str, NDArray],
    *,
    title: str,
    maps: Mapping[str, ScaleMap] | None = None,
    decoding: Mapping[str, Any] | None = None,
    num_cells: int = 12,
    num_workers: int = 0,
) -> Path:
    """Writes ``OUT/index.html`` and ``OUT/page``.

    Args:
        out: Folder without a page.
        atlas: Scales.
        paths: Image files.
        weights: (K_0, K_s) by finer scale, see :func:`correlations`.
        title: Name of the model.
        maps: By scale, see :func:`sspyr_mm.reports.atlas.atlas_map.compute_map`.
        decoding: Options of ``LoadRGBImage`` of the training.
        num_cells: Cells per prototype.
        num_workers: Processes that decode.

    Returns:
        The page.

    Raises:
        ValueError: If an image cannot be decoded.
    """
    folder = Path(out, _FOLDER)
    folder.mkdir(parents=True)
    _write_folder(folder, atlas, paths, weights, title, maps or {}, decoding or {}, num_cells, num_workers)
    return Path(shutil.copyfile(_ASSETS / "index.html", Path(out, "index.html")))


def check_folder(out: str | os.PathLike[str]) -> None:
    """Raises ValueError if a folder holds a page of another program."""
    page, index = Path(out, _FOLDER), Path(out, "index.html")
    for there, file, mark in ((page, page / "data.js", _DATA), (index, index, "page/atlas.js")):
        if there.exists() and not (file.is_file() and mark in file.read_text(errors="replace")[:4000]):
            raise ValueError(f"{there} exists and is not of an atlas: give another folder")


def _write_folder(
    folder: Path,
    atlas: Sequence[ScaleAtlas],
    paths: Sequence[str],
    weights: Mapping[str, NDArray],
    title: str,
    maps: Mapping[str, ScaleMap],
    decoding: Mapping[str, Any],
    num_cells: int,
    num_workers: int,
) -> None:
    chosen = [_choose(part, num_cells) for part in atlas]
    shown: list[NDArray] = [cells[..., 0].ravel() for cells in chosen]
    shown += [part.image_of(maps[part.scale].rows) for part in atlas if part.scale in maps]
    wanted = [int(image) for image in np.unique(np.concatenate(shown)) if image >= 0]
    drawn = _draw(folder, atlas, chosen, paths, wanted, decoding, num_workers)
    place = {image: number for number, image in enumerate(wanted)}
    data = {
        "title": title,
        "num_images": len(paths),
        "images": {"names": [printable(paths[image]) for image in wanted], **drawn["images"]},
        "scales": [_describe(part, cells, place, drawn) for part, cells in zip(atlas, chosen, strict=True)],
        "maps": [part.scale for part in atlas if part.scale in maps],
        "points": {},  # filled by page/map_*.js when a map is opened
        "links": [
            {"fine": part.scale, "coarse": atlas[0].scale, "weights": _strongest(weights[part.scale], part.usage())}
            for part in atlas
            if part.scale in weights
        ],
    }
    (folder / "data.js").write_text(f"{_DATA}{json.dumps(data, separators=(',', ':'))};\n")
    for part in atlas:
        if part.scale in maps:
            points = json.dumps(_describe_map(part, maps[part.scale], place, drawn["of"]), separators=(",", ":"))
            (folder / f"map_{part.scale}.js").write_text(f"{_GLOBAL}.points[{json.dumps(part.scale)}] = {points};\n")
    for asset in _COPIED:
        shutil.copyfile(_ASSETS / asset, folder / asset)


def _choose(part: ScaleAtlas, num_cells: int) -> NDArray:
    """Returns image and row of the nearest cells of used prototypes, most used first: (used, cells, 2), -1 for none."""
    usage = part.usage()
    order = [p for p in np.argsort(-usage, kind="stable") if usage[p]]
    found = np.full((len(order), num_cells, 2), -1, np.int64)
    for row, prototype in enumerate(order):
        cells = part.nearest(int(prototype), num_cells)
        found[row, : len(cells)] = np.stack([part.image_of(cells), cells], axis=1)
    return found


def _draw(
    folder: Path,
    atlas: Sequence[ScaleAtlas],
    chosen: Sequence[NDArray],
    paths: Sequence[str],
    wanted: Sequence[int],
    decoding: Mapping[str, Any],
    num_workers: int,
) -> dict[str, Any]:
    """Writes all sheets; every image is decoded once. Memory holds a sheet of images; cells are on the disk."""
    tasks: dict[int, list[tuple[int, int, int]]] = {image: [] for image in wanted}  # scale, row, column
    for scale, cells in enumerate(chosen):
        for row, column in np.argwhere(cells[..., 0] >= 0).tolist():
            tasks[int(cells[row, column, 0])].append((scale, row, column))
    boxes = {
        image: [tuple(atlas[s].box[chosen[s][row, column, 1]].tolist()) for s, row, column in tasks[image]]
        for image in wanted
    }
    shapes = [(len(cells) * _TILE, cells.shape[1] * _TILE, 3) for cells in chosen]
    sheets = [np.memmap(folder / f"{number}.raw", np.uint8, "w+", shape=shape) for number, shape in enumerate(shapes)]
    images = cut_images(paths, boxes, decoding, tile=_TILE, side=_SIDE, num_workers=num_workers)
    per_sheet = _COLUMNS**2
    files: list[str] = []
    sizes: list[tuple[int, int]] = []
    originals: dict[int, tuple[int, ...]] = {}
    page = np.zeros((_COLUMNS * _SIDE, _COLUMNS * _SIDE, 3), np.uint8)
    for number, (copy, tiles, original) in enumerate(images):
        image, place = wanted[number], number % per_sheet
        for (scale, row, column), tile in zip(tasks[image], tiles, strict=True):
            sheets[scale][row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE] = np.asarray(tile)
        y, x = divmod(place, _COLUMNS)
        height, width = copy.shape[:2]
        page[y * _SIDE : y * _SIDE + height, x * _SIDE : x * _SIDE + width] = np.asarray(copy)
        sizes.append((width, height))
        originals[image] = tuple(map(int, original))
        if place == per_sheet - 1 or number == len(wanted) - 1:
            files.append(_save(folder / f"images_{len(files):04}.jpg", page[: (y + 1) * _SIDE]))
            page[:] = 0
    cells_of = {part.scale: _save_parts(folder, part.scale, sheet) for part, sheet in zip(atlas, sheets, strict=True)}
    for number in range(len(sheets)):
        (folder / f"{number}.raw").unlink()
    about = {"sheets": files, "side": _SIDE, "columns": _COLUMNS, "per_sheet": per_sheet, "sizes": sizes}
    return {"images": about, "cells": cells_of, "of": originals}


def _save_parts(folder: Path, scale: str, sheet: NDArray) -> list[str]:
    """Writes the cells of a scale, ``_ROWS`` prototypes per file."""
    step = _ROWS * _TILE
    starts = range(0, len(sheet), step)
    return [_save(folder / f"{scale}_{start // step:04}.jpg", sheet[start : start + step]) for start in starts]


def _save(path: Path, pixels: NDArray) -> str:
    """Writes a sheet, and returns its address on the page."""
    Image.fromarray(np.asarray(pixels)).save(path, quality=_QUALITY)
    return f"{_FOLDER}/{path.name}"


def _describe(part: ScaleAtlas, cells: NDArray, place: Mapping[int, int], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the page shows of a scale; boxes are shares of the image."""
    usage = part.usage()
    prototypes = []
    for row in cells:
        rows = row[row[:, 0] >= 0]
        shown = []
        for image, cell in rows.tolist():
            width, height = drawn["of"][image]
            box = part.box[cell] / [width, height, width, height]
            numbers = (*box, part.score[cell], part.margin[cell])
            shown.append([place[image], *(round(float(x), 4) for x in numbers)])
        prototype = int(part.prototype[rows[0, 1]])
        prototypes.append({"id": prototype, "count": int(usage[prototype]), "cells": shown})
    return {
        "name": part.scale,
        "num_prototypes": part.num_prototypes,
        "num_assigned": len(part.prototype),
        "columns": cells.shape[1],
        "rows": _ROWS,
        "sheets": drawn["cells"][part.scale],
        "prototypes": prototypes,
    }


def _describe_map(
    part: ScaleAtlas, points: ScaleMap, place: Mapping[int, int], sizes: Mapping[int, tuple[int, ...]]
) -> dict[str, Any]:
    """Returns what the page shows of a map, an entry per point; boxes are shares of the image."""
    images = part.image_of(points.rows).tolist()
    boxes = part.box[points.rows] / np.array([sizes[image] * 2 for image in images])
    return {
        "x": [round(_INSET * x, 4) for x in points.place[:, 0].tolist()],
        "y": [round(_INSET * y, 4) for y in points.place[:, 1].tolist()],
        "image": [place[image] for image in images],
        "box": [round(share, 4) for share in boxes.ravel().tolist()],
        "prototype": part.prototype[points.rows].tolist(),
        "score": [round(score, 4) for score in part.score[points.rows].tolist()],
    }


def _strongest(weights: NDArray, usage: NDArray) -> list[list[tuple[int, float]]]:
    """Returns the used finer prototypes with the largest positive weights for each prototype of scale 0."""
    used = np.flatnonzero(usage)
    order = used[np.argsort(-weights[:, used], axis=1, kind="stable")[:, :_LINKS]]
    return [
        [(int(j), round(float(row[j]), 3)) for j in best if row[j] > 0]
        for row, best in zip(weights, order, strict=True)
    ]
