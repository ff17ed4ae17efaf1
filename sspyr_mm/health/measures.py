"""Measures of embeddings, codes and feature maps. All are scalars on the device; none needs a label."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_ROWS = 256
"""First rows that are measured, of features and for ranks: an effective rank grows with the number of rows."""
FEATURES = "features"
"""Name of the line of the backbone's measures."""
MIN_IMAGES = 4
"""Images below which spread and rank are not measured: few embeddings are alike in any run."""
FULL_COUNT = 4
"""Codes per prototype after which one that was never chosen counts as dead."""


@dataclass
class GroupHealth:
    """Measures of one group of patches: a scale, or a term of contrast.

    Prototypes are counted over several measurements, since one batch cannot use all of many prototypes: over the
    current period and the one before it, which ends with ``FULL_COUNT`` codes per prototype.
    """

    name: str
    num_cells: int = 1  # M, cells of the grid
    num_codes: int = 0  # counted
    counts: Tensor | None = None  # (M, K): how often a cell had a prototype
    earlier: tuple[int, Tensor] | None = None  # those among them of the period before
    values: dict[str, Tensor] = field(default_factory=dict)  # of the last measurement

    @property
    def num_prototypes(self) -> int:
        """K; 0 for methods without prototypes."""
        return 0 if self.counts is None else self.counts.shape[1]

    @property
    def is_counted(self) -> bool:
        """Whether there are enough codes to tell which prototypes are dead."""
        return self.num_codes >= FULL_COUNT * self.num_prototypes > 0

    def add_codes(self, codes: Tensor) -> None:
        """Counts prototypes by cell.

        Args:
            codes: (2, N, K), rows by image, then by cell.
        """
        num_prototypes = codes.shape[-1]
        if self.counts is not None:
            num_earlier, earlier = self.earlier or (0, torch.zeros_like(self.counts))
            if self.num_codes - num_earlier >= FULL_COUNT * num_prototypes:  # a new period
                self.num_codes, self.counts = self.num_codes - num_earlier, self.counts - earlier
                self.earlier = self.num_codes, self.counts
        chosen = codes.argmax(-1).flatten()
        cells = torch.arange(len(chosen), device=chosen.device) % self.num_cells
        size = self.num_cells * num_prototypes
        counts = torch.bincount(cells * num_prototypes + chosen, minlength=size).view(self.num_cells, num_prototypes)
        self.counts = counts if self.counts is None else self.counts + counts
        self.num_codes += len(chosen)

    @property
    def sizes(self) -> dict[str, float]:
        """K and the number of counted codes, if there are prototypes."""
        return {"prototypes": self.num_prototypes, "codes": self.num_codes} if self.num_prototypes else {}


def deviation(z: Tensor) -> Tensor:
    """Standard deviation of unit vectors (..., N, D), as a share of its maximum: 0 if all are equal, 1 if spread.

    NaN if one is not finite.
    """
    variance = 1 - z.mean(-2).square().sum(-1)
    return torch.where(variance.isfinite(), variance.clamp(min=0), torch.nan).sqrt()


def effective_rank(z: Tensor) -> Tensor:
    """Effective rank of rows (N, D): the exponential of the entropy of their singular values; NaN if one is not finite.

    Source: Garrido et al., RankMe, equation 1.
    """
    z = z.float()
    values = torch.linalg.svdvals(z.nan_to_num(posinf=0, neginf=0))  # others raise an error
    rank = torch.special.entr(values / values.sum().clamp(min=1e-12)).sum().exp()
    return torch.where(z.isfinite().all(), rank, torch.nan)


def code_entropy(codes: Tensor) -> Tensor:
    """Mean entropy of codes (..., K) over ln K: 0 if one-hot, 1 if uniform."""
    return torch.special.entr(codes).sum(-1).mean() / max(math.log(codes.shape[-1]), 1e-12)


def position_information(counts: Tensor) -> Tensor:
    """Mutual information of cell and prototype, over ln M: 0 if independent, 1 if a prototype tells the cell.

    The bias of small counts is subtracted (Miller and Madow).

    Args:
        counts: (M, K), how often a cell had a prototype, M > 1.
    """
    total = counts.sum()
    joint = counts / total
    rows, columns = joint.sum(1), joint.sum(0)
    information = torch.special.entr(rows).sum() + torch.special.entr(columns).sum() - torch.special.entr(joint).sum()
    used = (counts > 0).sum() - (rows > 0).sum() - (columns > 0).sum() + 1
    return (information - used / (2 * total)).clamp(min=0) / math.log(len(counts))


def position_share(z: Tensor) -> Tensor:
    """Share of the variance of unit vectors (B, M, D) that their position explains: 0 if none, 1 if all.

    The bias of few images is subtracted (adjusted R squared). 0 if all vectors are equal, NaN if one is not finite.

    Args:
        z: Embeddings of M > 1 positions in each of B > 1 images.
    """
    rows, positions = z.shape[0] * z.shape[1], z.shape[1]
    total = deviation(z.flatten(0, 1)).square() / (rows - 1)
    within = deviation(z.transpose(0, 1)).square().mean() / (rows - positions)
    share = (1 - within / total.clamp(min=1e-12)).clamp(min=0)
    return torch.where(total * (rows - 1) < 1e-6, 0.0, share)


@torch.no_grad()
def measure_group(group: GroupHealth, embeddings: Tensor, codes: Tensor | None) -> None:
    """Sets the values of a group from one step.

    Args:
        group: Group.
        embeddings: (V, N, D) of unit length; the first two views belong together.
        codes: (2, N, K), or None for methods without prototypes.
    """
    z = embeddings.float()
    group.values = {"alignment": (z[0] * z[1]).sum(-1).mean()}
    if z.shape[1] >= MIN_IMAGES * group.num_cells:
        group.values |= {"deviation": deviation(z).mean(), "rank": effective_rank(z[0, :MAX_ROWS])}
        if group.num_cells > 1 and codes is None:
            group.values["position_share"] = position_share(z[0].unflatten(0, (-1, group.num_cells)))
    if codes is None:
        return
    group.values["entropy"] = code_entropy(codes)
    group.add_codes(codes)
    assert group.counts is not None
    group.values["used"] = (group.counts.sum(0) > 0).sum()
    if group.num_cells > 1 and group.is_counted:
        group.values["position"] = position_information(group.counts)


@torch.no_grad()
def measure_features(patches: Tensor, maps: Tensor) -> dict[str, Tensor]:
    """Measures the backbone: its input, its features of images, and those of the cells of their maps.

    Args:
        patches: Input (N, 3, P, P).
        maps: Output (N, C, H, W), tokens (N, L, C), or (N, C).

    Returns:
        ``contrast``, the mean standard deviation of the pixels of a patch; of at least ``MIN_IMAGES`` images also
        ``image_rank`` and ``image_deviation``, and of several cells ``cell_rank``, and ``cell_deviation`` within an
        image.
    """
    found = {"contrast": patches[:MAX_ROWS].float().std((2, 3), correction=0).mean()}
    if len(maps) < MIN_IMAGES:
        return found
    maps = maps[:MAX_ROWS].float()
    cells = maps if maps.ndim == 3 else maps.flatten(2).transpose(1, 2) if maps.ndim == 4 else maps[:, None]
    images = F.normalize(cells.mean(1), dim=1)
    found |= {"image_rank": effective_rank(images), "image_deviation": deviation(images)}
    if cells.shape[1] > 1:
        cells = F.normalize(cells, dim=-1)  # (N, cells, C)
        chosen = torch.arange(len(cells), device=cells.device)  # one cell of each image, so as many rows as images
        found["cell_rank"] = effective_rank(cells[chosen, chosen % cells.shape[1]])
        found["cell_deviation"] = deviation(cells).mean()
    return found
