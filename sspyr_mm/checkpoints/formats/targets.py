"""Target formats."""

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from mmpretrain.models import ResNet
from torch import Tensor

from sspyr_mm.checkpoints.formats.backbones import require_defaults
from sspyr_mm.checkpoints.formats.resnet import from_canonical, to_detectron2
from sspyr_mm.checkpoints.formats.timm_names import TimmModel, to_timm
from sspyr_mm.tensor_files import CHECKSUM, SAFETENSORS_META, checksum, write_arrays

Config = Mapping[str, Any]
State = Mapping[str, Tensor]

RESNET_VARIANTS: dict[str, dict[str, Any]] = {
    "ResNet": {},
    "ResNetV1c": {"deep_stem": True},
    "ResNetV1d": {"deep_stem": True, "avg_down": True},
}
"""ResNets with separate types in configs, and the settings that those types imply."""


@dataclass(frozen=True)
class Target:
    """Target format."""

    # From a backbone's config and its tensors under mmpretrain's names to tensors under the target's names; raises
    # ValueError for a backbone that the target can't express.
    translate: Callable[[Config, State], dict[str, Tensor]]
    # Writes the tensors and our metadata, always as the same bytes. To an open file: with a path, torch.save would
    # store the file's temporary name in the archive.
    write: Callable[[dict[str, Tensor], dict[str, Any], BinaryIO], None]
    prefixable: bool = False  # whether names may have the prefix ``backbone.``
    ending: str = ""  # of files, by which programs detect the format; empty if they ignore it


def _unchanged(backbone: Config, state: State) -> dict[str, Tensor]:
    return dict(state)


def _mmdet(backbone: Config, state: State) -> dict[str, Tensor]:
    # Other backbones are used as type='mmpretrain.X', with mmpretrain's names.
    return from_canonical(state, "mmdet") if backbone["type"] in RESNET_VARIANTS else dict(state)


def _torchvision(backbone: Config, state: State) -> dict[str, Tensor]:
    _require_resnet(backbone, "torchvision")
    return dict(state)


def _detectron2(backbone: Config, state: State) -> dict[str, Tensor]:
    _require_resnet(backbone, "detectron2", "stem_channels", "base_channels")
    return {to_detectron2(name): tensor for name, tensor in state.items()}


def _timm(backbone: Config, state: State) -> dict[str, Tensor]:
    if backbone["type"] in RESNET_VARIANTS:
        _require_resnet(backbone, "timm", "deep_stem", "avg_down")
        return from_canonical(state, "timm")
    return to_timm(backbone, state).state


def timm_call(backbone: Config) -> str:
    """Returns ``timm.create_model(...)`` for a backbone; raises ValueError if timm has no such model."""
    if backbone["type"] in RESNET_VARIANTS:
        settings = {**RESNET_VARIANTS[backbone["type"]], **backbone}
        letter = ("c", "d")[bool(settings.get("avg_down"))] if settings.get("deep_stem") else ""
        model = TimmModel(f"resnet{backbone['depth']}{letter}", {}, {})
    else:
        model = to_timm(backbone, {})
    text = "".join(f", {key}={value!r}" for key, value in model.arguments.items())
    return f"timm.create_model({model.name!r}, num_classes=0{text})"


def _require_resnet(backbone: Config, target: str, *expressible: str) -> None:
    if backbone["type"] not in RESNET_VARIANTS:
        raise ValueError(f"{target} supports only ResNets, got {backbone['type']}")
    norm = backbone.get("norm_cfg", {}).get("type", "BN")
    if norm not in ("BN", "SyncBN", "MMSyncBN"):
        raise ValueError(f"{target} supports only ResNets with batch norm, got {norm}")
    settings = {**RESNET_VARIANTS[backbone["type"]], **backbone}
    require_defaults(settings, ResNet, target, ("depth", "norm_cfg", *expressible))


def _write_openmmlab(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    torch.save({"state_dict": state, "meta": meta}, file)


def _write_bare(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    torch.save(state, file)


def _write_detectron2(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    arrays = {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in state.items()}
    # With heuristics, Detectron2 maps `stem` to the model's `backbone.bottom_up.stem`.
    write_arrays({"model": arrays, "__author__": "sspyr_mm", "matching_heuristics": True}, file)


def _write_safetensors(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    # save_file ignores the umask: only the owner could read its files.
    from safetensors.torch import save

    content = save(state, metadata={"format": "pt", SAFETENSORS_META: json.dumps(meta)})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"][CHECKSUM] = checksum(header, io.BytesIO(content[end:]))
    # The order of its metadata varies between calls.
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # padding as the format requires: tensors begin at a multiple of 8 bytes
    file.write(len(text).to_bytes(8, "little") + text)
    file.write(memoryview(content)[end:])


TARGETS = {
    "mmpretrain": Target(_unchanged, _write_openmmlab, prefixable=True),
    "mmdet": Target(_mmdet, _write_openmmlab, prefixable=True),
    "mmseg": Target(_mmdet, _write_openmmlab, prefixable=True),
    "torchvision": Target(_torchvision, _write_bare),
    "timm": Target(_timm, _write_bare),
    "detectron2": Target(_detectron2, _write_detectron2, ending=".pkl"),
    "safetensors": Target(_unchanged, _write_safetensors, prefixable=True, ending=".safetensors"),
}


def check_target(target: str, file: str | os.PathLike[str], *, full_prefix: bool = False) -> None:
    """Raises ValueError if a target is unknown, has no prefix, or requires another file ending."""
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    if full_prefix and not TARGETS[target].prefixable:
        raise ValueError(f"names of {target} have no prefix: remove --full-prefix (full_prefix)")
    check_ending(target, file)


def check_ending(target: str, file: str | os.PathLike[str]) -> None:
    """Raises ValueError if programs would read the file as another format than that of a target, or ``sspyr_mm``."""
    name = os.fspath(file).lower()
    ending = TARGETS[target].ending if target in TARGETS else ""
    if not name.endswith(ending):
        raise ValueError(
            f"{file} must end in {ending}, by which programs detect the format: name it {file}{ending}, or choose "
            "another target (--to)"
        )
    if name.endswith(".safetensors") and target != "safetensors":
        raise ValueError(
            f"{file} ends in .safetensors, but {target} needs a file of torch.save: name it .pth, or choose "
            "--to safetensors (target='safetensors')"
        )
