"""Map of an atlas: cells of a scale in two dimensions, where near ones have similar embeddings."""

import importlib.util
import os
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sspyr_mm.reports.atlas.scale_atlas import ScaleAtlas

_NUM_NEIGHBOURS = 14
_LEAST = 5
"""Cells that UMAP needs at least."""


@dataclass(frozen=True)
class ScaleMap:
    """Place and neighbours of P cells of a scale."""

    rows: NDArray  # (P,) of the ScaleAtlas
    place: NDArray  # (P, 2) in -1 to 1, both axes with the same unit
    neighbours: NDArray  # (P, k) rows of the most similar cells of the map by cosine, best first


def require_umap(what: str, instead: str) -> None:
    """Raises ImportError if a library of the map is missing."""
    missing = [name for name, module in (("FAISS", "faiss"), ("UMAP", "umap")) if not importlib.util.find_spec(module)]
    if missing:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install '.[features]', or give {instead}")


def compute_map(part: ScaleAtlas) -> ScaleMap | None:
    """Places the cells whose embeddings were kept, by UMAP with a fixed seed; returns None if there are too few.

    Neighbours are exact (FAISS). Source: McInnes et al., UMAP, arXiv:1802.03426, by the library umap-learn.
    """
    import faiss

    vectors = np.array(part.embedding, np.float32, order="C")  # a copy: it is normalised in place
    if len(vectors) < _LEAST:
        return None
    # numba's layer of OpenMP changes the number of torch's threads, and forked workers of the process would hang.
    os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
    from umap import UMAP

    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    count = min(_NUM_NEIGHBOURS, len(vectors) - 2)
    cosine, found = index.search(vectors, count + 1)
    itself = np.arange(len(vectors))[:, None]
    others = found != itself
    others[others.all(axis=1), -1] = False  # a cell with many duplicates may not find itself
    neighbours = found[others].reshape(-1, count)
    distance = np.clip(1 - cosine[others].reshape(-1, count), 0, None)
    known = (np.hstack([itself, neighbours]), np.hstack([np.zeros_like(itself, np.float32), distance]), None)
    umap = UMAP(n_neighbors=count + 1, metric="cosine", init="pca", precomputed_knn=known, random_state=0, n_jobs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="precomputed_knn")  # others cannot be placed on the map later
        place = umap.fit_transform(vectors)
    low, high = place.min(axis=0), place.max(axis=0)
    place = (place - (low + high) / 2) / max(float((high - low).max()) / 2, 1e-12)
    return ScaleMap(part.mapped, place.astype(np.float32), part.mapped[neighbours])
