"""Atlas of prototypes: the prototype of every cell of every image, and the cells that are nearest to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sspyr_mm.datasets.transforms.cropping import largest_crop, resize
from sspyr_mm.datasets.workers import answer_to_parent_only
from sspyr_mm.machine import with_progress
from sspyr_mm.models import SSPRL
from sspyr_mm.pyramid import ScaleSpec


@dataclass(frozen=True)
class ScaleAtlas:
    """Cells of one scale; all arrays have a row per cell, image by image.

    An image has M cells. ``box`` (N * M, 4) is left, top, right and bottom of the patch in pixels of the image.
    """

    scale: str
    num_cells: int  # M
    num_prototypes: int  # K
    box: NDArray
    prototype: NDArray  # index of the nearest one
    score: NDArray  # cosine of it
    margin: NDArray  # cosine of it minus that of the second nearest
    mapped: NDArray = field(default_factory=lambda: np.zeros(0, np.int64))  # (P,) rows whose embeddings are kept
    embedding: NDArray = field(default_factory=lambda: np.zeros((0, 1), np.float32))  # (P, D) of those, of length 1

    def image_of(self, rows: NDArray) -> NDArray:
        """Returns the index of the image of cells."""
        return rows // self.num_cells

    def usage(self) -> NDArray:
        """Returns the number of cells of each prototype, (K,)."""
        return np.bincount(self.prototype, minlength=self.num_prototypes)

    def nearest(self, prototype: int, count: int) -> NDArray:
        """Returns the cells with the highest scores among those of a prototype, one per image, best first."""
        rows = np.flatnonzero(self.prototype == prototype)
        rows = rows[np.argsort(-self.score[rows], kind="stable")]
        _, first = np.unique(self.image_of(rows), return_index=True)
        return rows[np.sort(first)][:count]


def cut_cells(image: NDArray, scale: ScaleSpec) -> tuple[NDArray, NDArray]:
    """Cuts the patches of a whole image, without augmentation.

    The region is the largest centred part of the image with an aspect ratio that training uses, the patches are in the
    middle of its cells.

    Args:
        image: (H, W, 3) uint8.
        scale: Scale.

    Returns:
        Patches (M, P, P, 3) uint8, and their boxes (M, 4) in pixels of the image: left, top, right, bottom.
    """
    top, left, h, w = largest_crop((image.shape[0], image.shape[1]), scale.aspect)
    region = resize(image[top : top + h, left : left + w], scale.region)
    inset = (scale.cell - scale.patch) // 2
    starts = np.arange(scale.grid) * scale.cell + inset
    patches = [region[y : y + scale.patch, x : x + scale.patch] for y in starts for x in starts]
    x, y = np.tile(starts, scale.grid), np.repeat(starts, scale.grid)
    corners = np.stack([x, y, x + scale.patch, y + scale.patch], axis=1) / scale.region
    return np.stack(patches), corners * [w, h, w, h] + [left, top, left, top]


class ImageReader:
    """Reads images (H, W, 3) uint8 as training does; raises ValueError if a file cannot be decoded."""

    def __init__(self, decoding: Mapping[str, Any]) -> None:
        init_default_scope("mmpretrain")
        self.load = Compose([dict(type="LoadRGBImage", skip_broken=False, **decoding)])

    def __call__(self, path: str, content: bytes | None = None) -> NDArray:
        """Reads a file, or its content if that is given."""
        return self.load({"img_path": path, **({} if content is None else {"img_bytes": content})})["img"]


class _Cells(Dataset):
    """Patches and boxes of all scales, per image."""

    def __init__(self, paths: Sequence[str], scales: Sequence[ScaleSpec], decoding: Mapping[str, Any]) -> None:
        self.paths, self.scales, self.read = list(paths), scales, ImageReader(decoding)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, tuple[Tensor, Tensor]]:
        image = self.read(self.paths[index])
        cut = {scale.name: cut_cells(image, scale) for scale in self.scales}
        return {name: (torch.from_numpy(p).permute(0, 3, 1, 2), torch.from_numpy(b)) for name, (p, b) in cut.items()}


@torch.inference_mode()
def measure_atlas(
    model: SSPRL,
    paths: Sequence[str],
    *,
    decoding: Mapping[str, Any] | None = None,
    num_mapped: int = 0,
    device: str = "cpu",
    num_workers: int = 0,
    batch_size: int = 32,
) -> list[ScaleAtlas]:
    """Assigns the nearest prototype to every cell of every image.

    Embeddings are kept of all cells of some images: a random draw with a fixed seed, of which a scale takes as many as
    have ``num_mapped`` cells. The images of a finer scale are among those of a coarser one.

    Args:
        model: Trained model; it is set to evaluation mode.
        paths: Image files.
        decoding: Options of ``LoadRGBImage`` of the training.
        num_mapped: Cells per scale whose embeddings are kept, at most (but at least those of one image); 0 for none.
        device: Device.
        num_workers: Processes that decode and cut.
        batch_size: Images per batch.

    Returns:
        The scales, in order.

    Raises:
        ValueError: If the model has no prototypes.
    """
    if not isinstance(model, SSPRL):
        raise ValueError(
            f"An atlas shows prototypes, which {type(model).__name__} does not have: write its features with "
            "`python -m sspyr_mm embed`"
        )
    model = model.to(device).eval()
    scales = model.pyramid.scales
    loader = DataLoader(
        _Cells(paths, scales, decoding or {}),
        batch_size=batch_size,
        num_workers=num_workers,
        worker_init_fn=answer_to_parent_only,
    )
    order = np.random.default_rng(0).permutation(len(paths))
    chosen = {s.name: order[: max(1, num_mapped // s.num_patches) if num_mapped else 0] for s in scales}
    found: dict[str, list[tuple[NDArray, ...]]] = {scale.name: [] for scale in scales}
    for number, batch in enumerate(with_progress(loader, len(loader))):
        images = np.arange(number * batch_size, min((number + 1) * batch_size, len(paths)))
        for scale in scales:
            keep = np.isin(images, chosen[scale.name]).repeat(scale.num_patches)
            patches, boxes = batch[scale.name]
            *assigned, embedding = assign_patches(model, scale, patches.flatten(0, 1))
            found[scale.name].append((boxes.flatten(0, 1).float().numpy(), *assigned, embedding[keep]))
    atlas = []
    for scale in scales:
        box, prototype, score, margin, embedding = map(np.concatenate, zip(*found[scale.name], strict=True))
        first = np.sort(chosen[scale.name])[:, None] * scale.num_patches
        rows = (first + np.arange(scale.num_patches)).ravel()
        about = (scale.name, scale.num_patches, scale.num_prototypes)
        atlas.append(ScaleAtlas(*about, box, prototype, score, margin, rows, embedding))
    return atlas


def assign_patches(model: SSPRL, scale: ScaleSpec, patches: Tensor) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Returns prototypes, scores, margins and embeddings of patches (N, 3, P, P); see :class:`ScaleAtlas`."""
    inputs = model.data_preprocessor({"inputs": patches})["inputs"]
    embedding = model.neck(model.encode(inputs), scale.name)
    scores = model.head.prototypes_of(scale)(embedding).float()
    best, index = scores.topk(min(2, scores.shape[1]), dim=1)
    return (
        index[:, 0].cpu().numpy().astype(np.int32),
        best[:, 0].cpu().numpy(),
        (best[:, 0] - best[:, -1]).cpu().numpy(),
        embedding.float().cpu().numpy(),
    )
