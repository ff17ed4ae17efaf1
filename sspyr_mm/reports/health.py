"""Health of a trained model: measures of its embeddings, codes and features on images, with verdicts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmengine.dataset import BaseDataset, default_collate
from torch import Tensor

from sspyr_mm.health import (
    FEATURES,
    MAX_ROWS,
    Finding,
    GroupHealth,
    judge,
    measure_features,
    measure_group,
    record,
    start_recording,
    stop_recording,
)
from sspyr_mm.models import SSPRL, ViewModel
from sspyr_mm.models.losses import swapped_cross_entropy

_LEAST_PATCHES = 64
"""Patches from which codes are judged, unless there are fewer prototypes."""


@dataclass(frozen=True)
class Health:
    """Measures of one group of patches, or of the backbone's features."""

    name: str  # scale, term of the loss, or features
    values: dict[str, float]  # by name; ``samples`` is N, the number of patches of one view
    finding: Finding | None  # a sign of failure


@torch.no_grad()
def measure_health(
    model: ViewModel, dataset: BaseDataset, *, num_images: int = 512, batch_size: int = 64
) -> list[Health]:
    """Embeds augmented views of images, and measures every group of patches and the features of the backbone.

    Codes are those of all images together, without queues. The features are those of the first ``MAX_ROWS`` patches, of
    images in random order with a fixed seed.

    Args:
        model: Trained model; it is set to evaluation mode.
        dataset: Data set whose pipeline ends in ``PackPyramidInputs``.
        num_images: Maximum number of images, at random.
        batch_size: Images per batch.
    """
    model.eval()
    if isinstance(model, SSPRL):
        model.head.use_queues(False)
    count = min(num_images, len(dataset))
    indices = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count].tolist()
    recorded: dict[str, list[Tensor]] = {}
    ratios: dict[str, list[Tensor]] = {}
    for start in range(0, count, batch_size):
        batch = default_collate([dataset[i] for i in indices[start : start + batch_size]])
        found, losses = _run(model, model.data_preprocessor(batch)["inputs"])
        for name, value in found.items():
            if name.startswith("embeddings.") or (name in ("patches", "maps") and start < MAX_ROWS):
                recorded.setdefault(name, []).append(value)
        for name, value in losses.items():
            if "_ratio_" in name:
                ratios.setdefault(name.partition("_ratio_")[2], []).append(value)
    groups = [name for name in recorded if name.startswith("embeddings.")]
    measured = [_measure(model, name.partition(".")[2], torch.cat(recorded[name], dim=1), ratios) for name in groups]
    patches, maps = torch.cat(recorded["patches"]), torch.cat(recorded["maps"])
    values = {"samples": float(min(len(maps), MAX_ROWS))}
    values |= {name: float(value) for name, value in measure_features(patches, maps).items()}
    return [*measured, Health(FEATURES, values, judge(values, None))]


def _run(model: ViewModel, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
    """Returns the recorded tensors and the losses of a batch; none of SS-PRL, whose codes are those of all batches."""
    start_recording()
    try:
        if isinstance(model, SSPRL):
            embeddings = model.embed(inputs)
            for scale in model.pyramid.scales:
                record(f"embeddings.{scale.name}", embeddings[scale.name].flatten(1, 2))
            return stop_recording(), {}
        losses = model.loss(inputs)
        return stop_recording(), losses
    finally:
        stop_recording()


def _measure(model: ViewModel, name: str, embeddings: Tensor, ratios: dict[str, list[Tensor]]) -> Health:
    """Measures a group, given its embeddings (V, N, D)."""
    group, codes = GroupHealth(name, model.num_cells(name)), None
    found = torch.stack(ratios[name]).mean() if name in ratios else None
    if isinstance(model, SSPRL):
        scale = model.pyramid.scale(name)
        scores = model.head.prototypes_of(scale)(embeddings)
        codes = torch.stack(model.head.assigner.assign_many(list(scores)))
        log_probs = torch.log_softmax(scores / model.head.temperature, dim=-1)
        found = swapped_cross_entropy(codes, log_probs) / max(math.log(scale.num_prototypes), 1e-12)
    measure_group(group, embeddings, codes)
    values = {"samples": embeddings.shape[1], **group.sizes}
    values |= {measure: float(value) for measure, value in group.values.items()}
    advice = None
    if found is not None:
        values["ratio"] = float(found)
        advice = model.head.stuck_advice(name)
    if codes is not None and embeddings.shape[1] < (least := min(codes.shape[-1], _LEAST_PATCHES)):
        return Health(name, values, Finding("too few patches", f"give images with at least {least} patches of {name}"))
    return Health(name, values, judge(values, advice))
