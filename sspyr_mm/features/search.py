"""Nearest images and cells of an image, by cosine, among the features of a folder."""

import importlib.util
import os
from pathlib import Path

import numpy as np

from sspyr_mm.features.export import PATHS, read_about, read_paths
from sspyr_mm.features.extraction import FrozenEncoder, extract_features

_CHUNK = 65536
"""Rows that are read at a time."""


def search(
    folder: str | os.PathLike[str],
    encoder: FrozenEncoder,
    image: str,
    *,
    count: int = 10,
    cell: tuple[int, int] | None = None,
) -> list[tuple[float, str, tuple[int, int] | None]]:
    """Finds the nearest images, or the nearest cells of all images.

    Args:
        folder: Output folder of :func:`write_features` with ``npy``.
        encoder: Network of those features.
        image: File of the image.
        count: Number of neighbours.
        cell: Row and column of a cell of the image, whose nearest cells are searched; None: the image.

    Returns:
        Cosine, path, and row and column of the cell, nearest first.

    Raises:
        ImportError: If FAISS is missing.
        FileNotFoundError: If the image does not exist.
        ValueError: If the folder holds no such features or damaged ones, or the cell is outside of the grid.
    """
    if importlib.util.find_spec("faiss") is None:
        raise ImportError("search needs FAISS: pip install '.[features]'")
    import faiss

    if not os.path.isfile(image):
        raise FileNotFoundError(f"{image} does not exist or is not a file: give an image")
    about = read_about(folder)
    grid = about["grid"]
    if cell is not None and not grid:
        raise ValueError(f"{folder} holds no cells: run `python -m sspyr_mm embed` with --grid, into another folder")
    if cell is not None and not all(0 <= x < grid for x in cell):
        raise ValueError(f"--cell {cell[0]} {cell[1]} is not in the grid of the features in {folder}, {grid} x {grid}")
    file = Path(folder, "images.npy" if cell is None else "cells.npy")
    if not file.exists():
        raise ValueError(f"{file} does not exist: run `python -m sspyr_mm embed` with --format npy")
    paths = read_paths(folder)
    try:
        rows = np.load(file, mmap_mode="r")
        if not len(rows) == len(paths) == about["num_images"]:
            raise ValueError(f"{len(rows)} and {len(paths)} rows, not {about['num_images']}")
    except (ValueError, EOFError) as error:  # EOFError: an empty file
        raise ValueError(f"{file} or {PATHS} is damaged ({error}): remove it, and run the same embed again") from error
    rows = rows.reshape(-1, rows.shape[-1])
    encoder.grid = grid if cell is not None else 0
    query = extract_features(encoder, [image], size=about["size"]).view(-1, rows.shape[1])
    query = query[0 if cell is None else 1 + cell[0] * grid + cell[1]]
    index = faiss.IndexFlatIP(rows.shape[1])
    for start in range(0, len(rows), _CHUNK):
        chunk = np.array(rows[start : start + _CHUNK], np.float32)
        faiss.normalize_L2(chunk)
        index.add(chunk)
    wanted = query.numpy()[None].copy()
    faiss.normalize_L2(wanted)
    cosines, places = index.search(wanted, min(count, len(rows)))
    per_image = grid**2 if cell is not None else 1
    return [
        (float(cosine), paths[place // per_image], divmod(place % per_image, grid) if cell is not None else None)
        for cosine, place in zip(cosines[0], places[0].tolist(), strict=True)
    ]
