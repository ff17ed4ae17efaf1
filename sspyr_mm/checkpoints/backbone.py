"""One backbone out of a checkpoint of any known format, and into a file of any other."""

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from sspyr_mm.checkpoints.config_text import parse_config
from sspyr_mm.checkpoints.formats import sources, training_settings
from sspyr_mm.checkpoints.formats.networks import build_network, complete, plain_config
from sspyr_mm.checkpoints.formats.resnet import infer_config, to_canonical
from sspyr_mm.checkpoints.formats.targets import TARGETS, check_ending
from sspyr_mm.checkpoints.formats.training_settings import Normalisation, triple
from sspyr_mm.checkpoints.formats.weights import Weights, find_weights
from sspyr_mm.checkpoints.reading import FilePath, file_sha256, read_checkpoint
from sspyr_mm.checkpoints.writing import write_whole
from sspyr_mm.pyramid import PyramidSpec

_PREFIX = "backbone."


@dataclass(frozen=True)
class BackboneCheckpoint:
    """A backbone, complete, under one naming whatever the file's was.

    Args:
        source: Name of the detected format, e.g. ``moco_v2``.
        backbone: Config of mmpretrain's backbone, e.g. ``dict(type="ResNet", depth=50)``. Of files without a config
            inferred from names and shapes; see :func:`infer_config` for what those can't show.
        state_dict: All tensors of that backbone, under its names.
        mean: Per channel of RGB inputs on the scale of 0 to 255; ImageNet's unless the checkpoint says otherwise.
            Detectron2's own models of BGR inputs (MSRA) do not say so in their files: they are out of scope.
        std: Likewise; .228, .224, .225 times 255 for SwAV's and the SS-PRL authors' checkpoints.
        patch: Side of scale 0's patches in pixels, of our own pre-training checkpoints.
        sha256: Of the file.
    """

    source: str
    backbone: dict[str, Any]
    state_dict: dict[str, Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch: int | None
    sha256: str


class Located(NamedTuple):
    """A backbone among the tensors of a file, before anything is checked; see :class:`BackboneCheckpoint`."""

    source: str
    backbone: dict[str, Any]
    state: dict[str, Tensor]
    norm: Normalisation
    patch: int | None = None


def read_backbone(path: FilePath, *, allow_pickle: bool = False) -> BackboneCheckpoint:
    """Reads the backbone of a checkpoint; the format is told by the names of its tensors.

    Args:
        path: A checkpoint in one of :data:`FORMATS`, of our pre-training, or exported by us.
        allow_pickle: As of :func:`read_checkpoint`: can run any code that is in the file.

    Returns:
        The backbone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, of no known format, or its backbone is not whole.
    """
    weights = find_weights(read_checkpoint(path, allow_pickle=allow_pickle), where=str(path))
    return recognise(path, weights)


def recognise(path: FilePath, weights: Weights) -> BackboneCheckpoint:
    """The second half of :func:`read_backbone`.

    Args:
        path: The file.
        weights: Its tensors.

    Returns:
        As :func:`read_backbone`.
    """
    found = locate(str(path), weights)
    what = f"{path}, taken for {found.source} with the backbone {describe(found.backbone)},"
    return BackboneCheckpoint(
        source=found.source,
        backbone=found.backbone,
        state_dict=complete(found.state, build_network(found.backbone), what=what),
        mean=found.norm.mean,
        std=found.norm.std,
        patch=found.patch,
        sha256=file_sha256(path),
    )


def locate(where: str, weights: Weights) -> Located:
    """Finds the backbone among the tensors of a file, complete or not.

    Args:
        where: The file, for messages.
        weights: Its tensors.

    Returns:
        What was found; its tensors are those of ``weights``, not copies.

    Raises:
        ValueError: If the format is not known.
    """
    found = _pretraining(weights, where)
    if found is None and isinstance(weights.meta.get("backbone"), dict):
        found = _exported(weights, where)
    return found or _foreign(weights, where)


def build_backbone(checkpoint: BackboneCheckpoint) -> nn.Module:
    """Builds the network of a checkpoint.

    Args:
        checkpoint: What :func:`read_backbone` returned.

    Returns:
        The backbone of mmpretrain, its weights loaded completely, in evaluation mode on the CPU, with plain batch norm.
        Its output is a tuple of one entry, that of its last stage.
    """
    network = build_network(checkpoint.backbone)
    network.load_state_dict(checkpoint.state_dict, strict=True)
    if indices := getattr(network, "out_indices", None):
        network.out_indices = type(indices)([max(indices)])
    return network


def export_backbone(
    path: FilePath,
    target_file: FilePath,
    *,
    target: str = "mmpretrain",
    full_prefix: bool = False,
    allow_pickle: bool = False,
) -> int:
    """Writes the backbone of a checkpoint in the form another program reads.

    Args:
        path: As of :func:`read_backbone`.
        target_file: File to write; it appears only when it is whole. It ends in ``.safetensors`` for that target, and
            for no other.
        target: One of :data:`TARGETS`. ``mmpretrain``, ``mmdet`` and ``mmseg`` are for
            ``backbone.init_cfg=dict(type='Pretrained', checkpoint=TARGET_FILE)``.
        full_prefix: Whether names begin with ``backbone.``, as in a whole model's checkpoint.
        allow_pickle: As of :func:`read_checkpoint`: can run any code that is in the file.

    Returns:
        Number of tensors written.

    Raises:
        ValueError: As :func:`read_backbone`, or if the target can't express the backbone, or goes by another ending.
    """
    check_target(target, target_file, full_prefix=full_prefix)
    checkpoint = read_backbone(path, allow_pickle=allow_pickle)
    return write_backbone(
        checkpoint, target_file, path=path, target=target, full_prefix=full_prefix
    )


def check_target(target: str, target_file: FilePath, *, full_prefix: bool = False) -> None:
    """Refuses what :func:`export_backbone` can't write, whatever the checkpoint.

    Args:
        target: As of :func:`export_backbone`.
        target_file: As of :func:`export_backbone`.
        full_prefix: As of :func:`export_backbone`.

    Raises:
        ValueError: If the target is not known, has no prefix, or goes by another ending.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    if full_prefix and not TARGETS[target].prefixable:
        raise ValueError(f"names of {target} have no prefix: leave out --full-prefix (full_prefix)")
    check_ending(target, target_file)


def write_backbone(
    checkpoint: BackboneCheckpoint,
    target_file: FilePath,
    *,
    path: FilePath,
    target: str = "mmpretrain",
    full_prefix: bool = False,
) -> int:
    """The second half of :func:`export_backbone`.

    Args:
        checkpoint: What :func:`read_backbone` returned.
        target_file: As of :func:`export_backbone`.
        path: The file it was read from.
        target: As of :func:`export_backbone`.
        full_prefix: As of :func:`export_backbone`.

    Returns:
        Number of tensors written.
    """
    check_target(target, target_file, full_prefix=full_prefix)
    form = TARGETS[target]
    try:
        state = form.translate(checkpoint.backbone, checkpoint.state_dict)
    except ValueError as error:
        raise ValueError(
            f"{path} can't be written for {target}: {error}. Try mmpretrain, or safetensors"
        ) from error
    if full_prefix:
        state = {f"{_PREFIX}{name}": tensor for name, tensor in state.items()}
    meta: dict[str, Any] = {"source": os.path.basename(path), "format": checkpoint.source}
    for field in ("backbone", "mean", "std", "sha256"):
        meta[field] = getattr(checkpoint, field)

    def write(file: str) -> None:
        with open(file, "wb") as stream:
            form.write(state, meta, stream)

    write_whole(target_file, write, source=path)
    return len(state)


def describe(backbone: dict[str, Any]) -> str:
    """A backbone in one line: ``ResNet(depth=50)``."""
    settings = ", ".join(f"{key}={value!r}" for key, value in backbone.items() if key != "type")
    return f"{backbone.get('type')}({settings})"


def _pretraining(weights: Weights, where: str) -> Located | None:
    text = weights.meta.get("cfg")
    ours = any(name.startswith("head.prototypes.") for name in weights.tensors)
    if not isinstance(text, str) or not ours:
        return None
    cfg = parse_config(text).to_dict()
    model = cfg.get("model")
    if not isinstance(model, dict) or model.get("type") != "SSPRL":
        return None
    try:
        patch = PyramidSpec.from_config(model["pyramid"]).scales[0].patch
        backbone = plain_config(model["backbone"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: the config inside describes no model: {error}") from error
    norm = training_settings.read_normalisation(cfg, where=where)
    return Located("sspyr_mm", backbone, _unprefixed(weights.tensors), norm, patch)


def _exported(weights: Weights, where: str) -> Located:
    backbone, state = plain_config(weights.meta["backbone"]), weights.tensors
    if all(name.startswith(_PREFIX) for name in state):
        state = _unprefixed(state)
    if str(backbone.get("type", "")).startswith("ResNet"):
        state = to_canonical(state)
    given = {k: triple(weights.meta[k], where=where) for k in ("mean", "std") if k in weights.meta}
    return Located("sspyr_mm_backbone", backbone, state, Normalisation(**given))


def _foreign(weights: Weights, where: str) -> Located:
    row = sources.detect(weights, where=where)
    state = to_canonical(sources.select(row, weights.tensors))
    backbone, norm = infer_config(state), Normalisation(std=row.std)
    if cfg := training_settings.foreign_config(weights.meta, where=where):
        norm = training_settings.read_normalisation(cfg, where=where)
        if training_settings.style(cfg) == "caffe":
            backbone["style"] = "caffe"
    return Located(row.name, backbone, state, norm)


def _unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(_PREFIX): v for k, v in tensors.items() if k.startswith(_PREFIX)}
