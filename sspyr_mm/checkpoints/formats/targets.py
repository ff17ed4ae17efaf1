"""Target formats."""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from mmpretrain.models import ResNet
from torch import Tensor

from sspyr_mm.checkpoints.array_pickle import write_arrays
from sspyr_mm.checkpoints.formats.resnet import from_canonical, to_detectron2
from sspyr_mm.checkpoints.formats.timm_names import TimmModel, to_timm
from sspyr_mm.checkpoints.read import SAFETENSORS_META

Config = Mapping[str, Any]
State = Mapping[str, Tensor]
Translation = Callable[[Config, State], dict[str, Tensor]]

RESNET_VARIANTS: dict[str, dict[str, Any]] = {
    "ResNet": {},
    "ResNetV1c": {"deep_stem": True},
    "ResNetV1d": {"deep_stem": True, "avg_down": True},
}
"""ResNets with separate types in configs, and the settings that those types imply."""
_WITHOUT_WEIGHTS = {
    *("type", "depth", "zero_init_residual", "out_indices", "drop_path_rate", "init_cfg"),
    *("frozen_stages", "norm_eval", "with_cp"),
}


@dataclass(frozen=True)
class Target:
    """Target format.

    Args:
        description: Description of the file, for help and README.
        translate: Function from mmpretrain's names to the target's; raises ValueError for a backbone that the target
            can't express.
        write: Function that writes the tensors and our metadata, always as the same bytes. It writes to an open file,
            since torch.save stores a path in the archive, and the name of a partial file contains the process id.
        prefixable: Whether names may have the prefix ``backbone.``.
        ending: File ending by which programs detect the format; empty if they ignore it.
    """

    description: str
    translate: Translation
    write: Callable[[dict[str, Tensor], dict[str, Any], BinaryIO], None]
    prefixable: bool = False
    ending: str = ""


def _unchanged(backbone: Config, state: State) -> dict[str, Tensor]:
    return dict(state)


def _mmdet(backbone: Config, state: State) -> dict[str, Tensor]:
    """Converts ResNets only: other backbones are used there as ``type='mmpretrain.X'``, with mmpretrain's names."""
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
    """Returns the call that creates the timm model for a backbone.

    Args:
        backbone: Config of the backbone.

    Returns:
        ``timm.create_model(...)``.

    Raises:
        ValueError: If timm has no such model.
    """
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
    defaults = inspect.signature(ResNet).parameters
    settings = {**RESNET_VARIANTS[backbone["type"]], **backbone}
    for key in settings.keys() - _WITHOUT_WEIGHTS - {"norm_cfg", *expressible}:
        value = settings[key]
        default = defaults[key].default if key in defaults else None
        if (tuple(value) if isinstance(value, list) else value) != default:
            raise ValueError(f"{target} has no ResNet with {key}={value!r}, only with {default!r}")


def _write_openmmlab(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    torch.save({"state_dict": state, "meta": meta}, file)


def _write_bare(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    torch.save(state, file)


def _write_detectron2(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    arrays = {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in state.items()}
    # With heuristics it finds `stem` in a model's `backbone.bottom_up.stem` by itself.
    write_arrays({"model": arrays, "__author__": "sspyr_mm", "matching_heuristics": True}, file)


def _write_safetensors(state: dict[str, Tensor], meta: dict[str, Any], file: BinaryIO) -> None:
    # Not save_file, whose files only their owner can read, whatever the umask.
    from safetensors.torch import save

    content = save(state, metadata={"format": "pt", SAFETENSORS_META: json.dumps(meta)})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    # The order of its metadata varies between calls.
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # padding as the format requires: tensors begin at a multiple of 8 bytes
    file.write(len(text).to_bytes(8, "little") + text)
    file.write(memoryview(content)[end:])


TARGETS = {
    "mmpretrain": Target("for init_cfg in mmpretrain", _unchanged, _write_openmmlab, True),
    "mmdet": Target("for init_cfg in mmdet", _mmdet, _write_openmmlab, True),
    "mmseg": Target("for init_cfg in mmseg", _mmdet, _write_openmmlab, True),
    "torchvision": Target("dict of tensors for a torchvision ResNet", _torchvision, _write_bare),
    "timm": Target("dict of tensors for a timm model", _timm, _write_bare),
    "detectron2": Target("file for MODEL.WEIGHTS of Detectron2", _detectron2, _write_detectron2, ending=".pkl"),
    "safetensors": Target("mmpretrain's names in .safetensors", _unchanged, _write_safetensors, True, ".safetensors"),
}


def check_ending(target: str, file: str | os.PathLike[str]) -> None:
    """Rejects file names that programs would read as another format.

    Args:
        target: One of :data:`TARGETS`, or ``sspyr_mm``.
        file: Output file.

    Raises:
        ValueError: If the file lacks the ending of its format, or ends in ``.safetensors`` without being such a
            file.
    """
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
