"""Reads a backbone from a checkpoint of any known format, and writes it in any target format."""

import os
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sspyr_mm.checkpoints.formats.backbones import build_network, complete
from sspyr_mm.checkpoints.formats.locate import locate
from sspyr_mm.checkpoints.formats.targets import TARGETS, check_ending
from sspyr_mm.checkpoints.formats.weights import Selection, Weights, find_weights
from sspyr_mm.checkpoints.read import FilePath, file_sha256, read_checkpoint
from sspyr_mm.checkpoints.write import write_whole

_PREFIX = "backbone."


@dataclass(frozen=True)
class BackboneCheckpoint:
    """Complete backbone under mmpretrain's tensor names, whatever the format of its file.

    Args:
        source: Name of the detected format, e.g. ``moco_v2``.
        backbone: Config of mmpretrain's backbone, e.g. ``dict(type="ResNet", depth=50)``. For files without a config
            it is inferred from names and shapes; see :func:`infer_config` for the limits.
        state_dict: All tensors of that backbone, under its names.
        mean: Mean per channel of RGB inputs in 0-255; ImageNet's unless the checkpoint states another one.
            Files of Detectron2's BGR models (MSRA) do not state their channel order: they are out of scope.
        std: Standard deviation per channel, likewise; .228, .224, .225 times 255 for SwAV and the official code.
        patch: Side of scale 0's patches in pixels, of our own pre-training checkpoints.
        sha256: Hash of the file.
        key: Entry of the file that holds the tensors, with dots for nested dicts; None for the file itself.
        prefix: Beginning of the backbone's names there.
        notes: Decisions about other networks in the file, and the options that change them.
        decoding: Options of ``LoadRGBImage`` in pre-training: ``value_range``, ``background``.
    """

    source: str
    backbone: dict[str, Any]
    state_dict: dict[str, Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch: int | None
    sha256: str
    key: str | None = None
    prefix: str = ""
    notes: tuple[str, ...] = ()
    decoding: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Describes where in the file the backbone is, and the decisions about other networks."""
        where = f"entry {self.key}" if self.key else "the file itself"
        prefix = f"prefix {self.prefix}" if self.prefix else "no prefix"
        return "; ".join((f"{where}, {prefix}", *self.notes))


def read_backbone(path: FilePath, *, allow_pickle: bool = False, select: Selection | None = None) -> BackboneCheckpoint:
    """Reads the backbone of a checkpoint; the format is detected from the names of its tensors.

    Args:
        path: Checkpoint in one of :data:`FORMATS`, of our pre-training, or exported by us.
        allow_pickle: See :func:`read_checkpoint`; can run any code in the file.
        select: Network to take from a file with several, or one that is not found.

    Returns:
        The backbone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint of a known format, its backbone is incomplete, or it holds several
            networks and the choice is ambiguous.
    """
    content = read_checkpoint(path, allow_pickle=allow_pickle)
    return recognise(path, find_weights(content, where=str(path), select=select), select)


def recognise(path: FilePath, weights: Weights, select: Selection | None = None) -> BackboneCheckpoint:
    """Finds and checks the backbone among tensors; second part of :func:`read_backbone`.

    Args:
        path: The file.
        weights: Its tensors.
        select: See :func:`read_backbone`.

    Returns:
        As :func:`read_backbone`.
    """
    found = locate(str(path), weights, select)
    what = f"{path}, read as {found.source} with the backbone {describe(found.backbone)},"
    return BackboneCheckpoint(
        source=found.source,
        backbone=found.backbone,
        state_dict=complete(found.state, build_network(found.backbone), what=what),
        mean=found.norm.mean,
        std=found.norm.std,
        patch=found.patch,
        sha256=file_sha256(path),
        key=weights.container,
        prefix=found.prefix,
        notes=(*weights.notes, *found.notes),
        decoding=found.decoding,
    )


def build_backbone(checkpoint: BackboneCheckpoint) -> nn.Module:
    """Builds the network of a checkpoint.

    Args:
        checkpoint: Output of :func:`read_backbone`.

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
    select: Selection | None = None,
) -> int:
    """Writes the backbone of a checkpoint in the format of another program.

    Args:
        path: See :func:`read_backbone`.
        target_file: Output file, written atomically. It ends in ``.safetensors`` for that target and for no other,
            and in ``.pkl`` for ``detectron2``.
        target: One of :data:`TARGETS`. ``mmpretrain``, ``mmdet`` and ``mmseg`` are for
            ``backbone.init_cfg=dict(type='Pretrained', checkpoint=TARGET_FILE)``.
        full_prefix: Whether names begin with ``backbone.``, as in a whole model's checkpoint.
        allow_pickle: See :func:`read_checkpoint`; can run any code in the file.
        select: See :func:`read_backbone`.

    Returns:
        Number of tensors written.

    Raises:
        ValueError: As :func:`read_backbone`, or if the target can't express the backbone or needs another file ending.
    """
    check_target(target, target_file, full_prefix=full_prefix)
    checkpoint = read_backbone(path, allow_pickle=allow_pickle, select=select)
    return write_backbone(checkpoint, target_file, path=path, target=target, full_prefix=full_prefix)


def check_target(target: str, target_file: FilePath, *, full_prefix: bool = False) -> None:
    """Rejects arguments with which :func:`export_backbone` can't write any checkpoint.

    Args:
        target: See :func:`export_backbone`.
        target_file: See :func:`export_backbone`.
        full_prefix: See :func:`export_backbone`.

    Raises:
        ValueError: If the target is unknown, has no prefix, or requires another file ending.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    if full_prefix and not TARGETS[target].prefixable:
        raise ValueError(f"names of {target} have no prefix: remove --full-prefix (full_prefix)")
    check_ending(target, target_file)


def write_backbone(
    checkpoint: BackboneCheckpoint,
    target_file: FilePath,
    *,
    path: FilePath,
    target: str = "mmpretrain",
    full_prefix: bool = False,
) -> int:
    """Writes a backbone that was read; second part of :func:`export_backbone`.

    Args:
        checkpoint: Output of :func:`read_backbone`.
        target_file: See :func:`export_backbone`.
        path: File it was read from.
        target: See :func:`export_backbone`.
        full_prefix: See :func:`export_backbone`.

    Returns:
        Number of tensors written.
    """
    check_target(target, target_file, full_prefix=full_prefix)
    form = TARGETS[target]
    try:
        state = form.translate(checkpoint.backbone, checkpoint.state_dict)
    except ValueError as error:
        raise ValueError(f"{path} can't be written for {target}: {error}. Try mmpretrain, or safetensors") from error
    if full_prefix:
        state = {f"{_PREFIX}{name}": tensor for name, tensor in state.items()}
    meta: dict[str, Any] = {"source": os.path.basename(path), "format": checkpoint.source}
    for key in ("backbone", "mean", "std", "sha256"):
        meta[key] = getattr(checkpoint, key)
    if checkpoint.decoding:
        meta["decoding"] = checkpoint.decoding

    def write(file: str) -> None:
        with open(file, "wb") as stream:
            form.write(state, meta, stream)

    write_whole(target_file, write, source=path)
    return len(state)


def describe(backbone: dict[str, Any]) -> str:
    """Formats a backbone on one line: ``ResNet(depth=50)``."""
    settings = ", ".join(f"{key}={value!r}" for key, value in backbone.items() if key != "type")
    return f"{backbone.get('type')}({settings})"
