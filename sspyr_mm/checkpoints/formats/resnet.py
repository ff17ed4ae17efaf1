"""Tensor names of ResNets, and the architecture inferred from names and shapes.

Names of mmpretrain's ``ResNet`` are canonical: torchvision's, except that a deep stem is ``stem.{0,1,2}.{conv,bn}``.
"""

import inspect
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from mmpretrain.models import ResNet
from torch import Tensor

State = Mapping[str, Tensor]

_DEEP_STEM = ("stem.0.conv", "stem.0.bn", "stem.1.conv", "stem.1.bn", "stem.2.conv", "stem.2.bn")
_SPELLINGS = {
    "mmdet": ("stem.0", "stem.1", "stem.3", "stem.4", "stem.6", "stem.7"),  # and mmseg
    "timm": ("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1"),
}
"""Modules of the deep stem in other programs, in the order of mmpretrain's."""
# A shortcut that averages begins with its pooling. layer1 needs no pooling: there mmpretrain omits that index, and the
# others fill it with a module without weights.
_SHORTCUT = {f"layer1.0.downsample.{i}": f"layer1.0.downsample.{i + 1}" for i in (0, 1)}
_AVG_DOWN = re.compile(r"layer[2-4]\.0\.downsample\.2\.")
_FIRST_BLOCK = re.compile(r"((?:.*\.)?)(?:layer1|res2|4)\.0\.conv1\.weight")
_STEMS = ("conv1", "conv1.0", "stem.0", "stem.0.conv", "stem.conv1", "0", "0.0")
"""Names of first convolutions: torchvision, timm, mmdet, mmpretrain, Detectron2, numbered children."""


def find_prefixes(names: Collection[str]) -> list[str]:
    """Returns the prefixes, with the final dot or empty, under which there are a ResNet's stem and first block."""
    starts = [match[1] for match in map(_FIRST_BLOCK.fullmatch, names) if match]
    return [p for p in starts if any(f"{p}{stem}.weight" in names for stem in _STEMS)]


def to_canonical(state: State) -> dict[str, Tensor]:
    """Converts deep stems and averaging shortcuts from torchvision's, timm's, mmdet's or mmseg's names to mmpretrain's.

    Raises ValueError if two tensors get the same name.
    """
    names: dict[str, str] = {}
    for modules in _SPELLINGS.values():
        if f"{modules[0]}.weight" in state:
            names.update(zip(modules, _DEEP_STEM, strict=True))
    if "layer1.0.downsample.2.weight" in state:
        names.update({theirs: ours for ours, theirs in _SHORTCUT.items()})
    return _rename(state, names)


def from_canonical(state: State, spelling: str) -> dict[str, Tensor]:
    """Inverts :func:`to_canonical`, to names of ``mmdet`` (and mmseg) or ``timm`` (and torchvision)."""
    names: dict[str, str] = {}
    if "stem.0.conv.weight" in state:
        names.update(zip(_DEEP_STEM, _SPELLINGS[spelling], strict=True))
    if averages(state):
        names.update(_SHORTCUT)
    return _rename(state, names)


def averages(state: State) -> bool:
    """Returns whether shortcuts average before their convolution."""
    return any(map(_AVG_DOWN.match, state))


def from_detectron2(name: str) -> str:
    """Converts a name of Detectron2 to torchvision's."""
    name = re.sub(r"^stem\.", "", name)
    name = re.sub(r"^res(\d)\.", lambda m: f"layer{int(m[1]) - 1}.", name)
    name = re.sub(r"conv(\d)\.norm\.", r"bn\1.", name)
    return name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")


def to_detectron2(name: str) -> str:
    """Converts a name of torchvision to Detectron2's."""
    name = re.sub(r"bn(\d)\.", r"conv\1.norm.", name)
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    if not name.startswith("layer"):
        return f"stem.{name}"
    return re.sub(r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}.", name)


def infer_config(state: State) -> dict[str, Any]:
    """Infers a ``ResNet`` of mmpretrain from tensors under its names; the closest one if tensors are missing.

    torchvision's conventions are assumed for everything else: the stride of a bottleneck in its 3x3 convolution, RGB
    inputs, no anti-aliasing. Settings that equal mmpretrain's defaults are left out.
    """
    bottleneck = any(re.match(r"layer\d\.\d+\.conv3\.", name) for name in state)
    counts = [_num_blocks(state, f"layer{i}") for i in (1, 2, 3, 4)]
    distances = {
        depth: sum(abs(a - b) for a, b in zip(counts, wanted, strict=True))
        for depth, (block, wanted) in ResNet.arch_settings.items()
        if (block.__name__ == "Bottleneck") is bottleneck
    }
    deep_stem = "stem.0.conv.weight" in state
    # A file can state any shape without data, and networks that the data can't fill must not be built. The smallest
    # one, ResNet-18, has 2,700 numbers per squared width.
    bound = max(64, math.isqrt(stored_numbers(state.values()) // 2000))
    found = {
        "stem_channels": _width(state, bound, "stem.2.conv.weight" if deep_stem else "conv1.weight"),
        "base_channels": _width(state, bound, "layer1.0.conv1.weight"),
        "deep_stem": deep_stem,
        "avg_down": averages(state),
    }
    defaults = inspect.signature(ResNet).parameters
    return {
        "type": "ResNet",
        "depth": min(distances, key=lambda depth: distances[depth]),
        **{key: value for key, value in found.items() if value != defaults[key].default},
    }


def stored_numbers(tensors: Iterable[Tensor]) -> int:
    """Returns how many numbers tensors have in memory: those that several share, or that one repeats, count once."""
    storages = {}
    for tensor in tensors:
        if tensor.layout == torch.strided and not tensor.is_meta:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
    return sum(storages.values())


def _num_blocks(state: State, layer: str) -> int:
    numbers = [int(m[1]) for name in state if (m := re.match(rf"{layer}\.(\d+)\.", name))]
    return 1 + max(numbers, default=-1)


def _width(state: State, bound: int, name: str) -> int:
    shape = state[name].shape if name in state else ()
    return min(max(shape[0], 2), bound) if shape else 64


def _rename(state: State, modules: Mapping[str, str]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, last = name.rpartition(".")
        other = f"{modules.get(module, module)}.{last}" if module else last
        if other in renamed:
            raise ValueError(f"Two tensors map to the backbone's {other}, one of them is {name}")
        renamed[other] = tensor
    return renamed
