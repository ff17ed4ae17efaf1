"""Backbones of checkpoints, read from any known format and written in any target format."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from torch import nn

from sspyr_mm.checkpoints.bounded import bounded_network
from sspyr_mm.checkpoints.formats.backbones import build_network, complete
from sspyr_mm.checkpoints.formats.locate import BackboneCheckpoint, locate
from sspyr_mm.checkpoints.formats.targets import TARGETS, check_target
from sspyr_mm.checkpoints.formats.weights import Selection, Weights, find_weights
from sspyr_mm.files import whole_file
from sspyr_mm.tensor_files import FilePath, file_sha256, read_checkpoint


def read_backbone(path: FilePath, *, allow_pickle: bool = False, select: Selection | None = None) -> BackboneCheckpoint:
    """Reads the backbone of a checkpoint; the format is detected from the names of its tensors.

    Args:
        path: Checkpoint in one of :data:`FORMATS`, of our pre-training, or exported by us.
        allow_pickle: See :func:`read_checkpoint`; can run any code in the file.
        select: Network to read, for a file with several networks or one that is not detected.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint of a known format, its backbone is incomplete, or it holds several
            networks and the choice is ambiguous.
    """
    weights = find_weights(read_checkpoint(path, allow_pickle=allow_pickle), path, select)
    return completed(locate(weights), weights)


def completed(found: BackboneCheckpoint, weights: Weights) -> BackboneCheckpoint:
    """Completes the output of :func:`locate`; raises ValueError if tensors are missing or wrong."""
    what = f"{weights.path}, read as {found.source} with the backbone {describe(found.backbone)},"
    with bounded_network(found.state_dict.values()):
        network = build_network(found.backbone)
    return replace(
        found,
        state_dict=complete(found.state_dict, network, what=what),
        sha256=file_sha256(weights.path),
        key=weights.choice.name or None,
        notes=(*weights.choice.notes, *found.notes),
    )


def build_backbone(checkpoint: BackboneCheckpoint) -> nn.Module:
    """Builds the backbone of mmpretrain with the weights of :func:`read_backbone`, in evaluation mode on the CPU.

    Its batch norm is plain. It outputs a tuple of one feature map, that of the last stage.
    """
    with bounded_network(checkpoint.state_dict.values()):
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
    """Reads a backbone by :func:`read_backbone` and writes it by :func:`write_backbone`; returns its tensor count."""
    check_target(target, target_file, full_prefix=full_prefix)
    checkpoint = read_backbone(path, allow_pickle=allow_pickle, select=select)
    return write_backbone(checkpoint, target_file, path=path, target=target, full_prefix=full_prefix)


def write_backbone(
    checkpoint: BackboneCheckpoint,
    target_file: FilePath,
    *,
    path: FilePath,
    target: str = "mmpretrain",
    full_prefix: bool = False,
) -> int:
    """Writes a backbone in the format of another program.

    Args:
        checkpoint: Output of :func:`read_backbone`.
        target_file: Output file, written atomically. It must end in ``.safetensors`` for that target and for no other,
            and in ``.pkl`` for ``detectron2``.
        path: File that it was read from.
        target: One of :data:`TARGETS`. ``mmpretrain``, ``mmdet`` and ``mmseg`` are for
            ``backbone.init_cfg=dict(type='Pretrained', checkpoint=TARGET_FILE)``.
        full_prefix: Whether names begin with ``backbone.``, as in a whole model's checkpoint.

    Returns:
        Number of tensors written.

    Raises:
        ValueError: If the target can't express the backbone or needs another file ending.
    """
    check_target(target, target_file, full_prefix=full_prefix)
    form = TARGETS[target]
    try:
        state = form.translate(checkpoint.backbone, checkpoint.state_dict)
    except ValueError as error:
        raise ValueError(f"{path} can't be written for {target}: {error}. Try mmpretrain, or safetensors") from error
    if full_prefix:
        state = {f"backbone.{name}": tensor for name, tensor in state.items()}
    meta: dict[str, Any] = {"source": os.path.basename(path), "format": checkpoint.source}
    meta.update({key: getattr(checkpoint, key) for key in ("backbone", "mean", "std", "sha256")})
    if checkpoint.decoding:
        meta["decoding"] = checkpoint.decoding
    with open_output(target_file, path) as file:
        form.write(state, meta, file)
    return len(state)


@contextmanager
def open_output(target_file: FilePath, source: FilePath) -> Iterator[BinaryIO]:
    """Yields a file that replaces the target at the end; raises ValueError if the target is the source."""
    if os.path.exists(target_file) and os.path.samefile(target_file, source):
        raise ValueError(f"{target_file} is the checkpoint itself: choose another output file")
    with whole_file(target_file) as partial, open(partial, "wb") as file:
        yield file


def describe(backbone: dict[str, Any]) -> str:
    """Formats a backbone on one line: ``ResNet(depth=50)``."""
    settings = ", ".join(f"{key}={value!r}" for key, value in backbone.items() if key != "type")
    return f"{backbone.get('type')}({settings})"
