"""Inputs and strides of a network, from the config inside its OpenMMLab checkpoint."""

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sspyr_mm.checkpoints.config_text import parse_plain
from sspyr_mm.models.data_preprocessors.pyramid_augment import IMAGENET_MEAN, IMAGENET_STD

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """Normalisation of RGB inputs in 0-255."""

    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD


def read_decoding(options: Any, *, where: str) -> dict[str, Any]:
    """Returns ``value_range`` and ``background``, the options of ``LoadRGBImage`` that pixel values depend on.

    Raises ValueError if an option in the file does not consist of numbers.
    """
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise ValueError(f"{where}: options of LoadRGBImage must be a dict, got {options!r:.80}")
    decoding: dict[str, Any] = {}
    for key, count in (("value_range", 2), ("background", 3)):
        if (value := options.get(key)) is None:
            continue
        numbers = isinstance(value, (list, tuple)) and all(type(v) in (int, float) and math.isfinite(v) for v in value)
        if not numbers or len(value) != count:
            raise ValueError(f"{where}: {key} must be {count} numbers, got {value!r:.80}")
        decoding[key] = tuple(value)
    return decoding


def training_decoding(cfg: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Returns the decoding options of a config's training data; warns if they differ, and returns the first ones."""
    transforms = find_transforms("LoadRGBImage", cfg.get("train_dataloader"))
    found = [read_decoding(transform, where=where) for transform in transforms]
    if any(one != found[0] for one in found[1:]):
        warnings.warn(
            f"{where}: parts of the training data were decoded differently ({found}); images are decoded with "
            f"{found[0] or 'the defaults'}",
            stacklevel=2,
        )
    return found[0] if found else {}


def find_transforms(name: str, part: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the transforms of a type in a part of a config, at any depth."""
    if isinstance(part, Mapping):
        if _class(part) == name:
            yield part
        part = tuple(part.values())
    if isinstance(part, (list, tuple)):
        for value in part:
            yield from find_transforms(name, value)


def foreign_config(meta: Mapping[str, Any], *, where: str) -> Mapping[str, Any]:
    """Returns the config in an OpenMMLab checkpoint; empty if missing or, with a warning, if it is not plain data."""
    if not meta.get("cfg"):
        return {}
    try:
        return parse_plain(meta["cfg"])
    except ValueError as error:
        warnings.warn(
            f"{where}: {error}. The config would state BGR inputs, unusual means or caffe's style, "
            "which are not detected: check that the training used none of them",
            stacklevel=2,
        )
        return {}


def read_normalisation(cfg: Mapping[str, Any], *, where: str) -> Normalisation:
    """Returns the normalisation in a config of any OpenMMLab project, by default ImageNet's.

    Raises ValueError if the network was trained on BGR inputs.
    """
    model = cfg.get("model")
    loads_rgb = any(find_transforms("LoadRGBImage", cfg.get("train_dataloader")))
    candidates = (
        model.get("data_preprocessor") if isinstance(model, Mapping) else None,
        cfg.get("data_preprocessor"),
        cfg.get("img_norm_cfg"),  # before OpenMMLab 2.0
    )
    for entry in candidates:
        if not isinstance(entry, Mapping):
            continue
        if _class(entry) != "PyramidAugment":  # whose inputs are always RGB
            if entry.get("mean") is None or entry.get("std") is None:
                continue
            if not (entry.get("to_rgb") or entry.get("bgr_to_rgb") or loads_rgb):
                raise ValueError(
                    f"{where} was trained on BGR inputs (mean {entry['mean']}, no to_rgb): only networks of RGB inputs "
                    "are converted"
                )
        mean, std = entry.get("mean", IMAGENET_MEAN), entry.get("std", IMAGENET_STD)
        return Normalisation(triple(mean, where=where), triple(std, where=where))
    return Normalisation()


def triple(value: Any, *, where: str) -> Triple:
    """Parses the mean or standard deviation in a file; raises ValueError if it is not three numbers."""
    try:
        red, green, blue = (float(number) for number in value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: mean and std must be three numbers each, got {value!r:.80}") from None
    return red, green, blue


def style(cfg: Mapping[str, Any]) -> str:
    """Returns where a config's bottlenecks stride: ``pytorch`` in the 3x3 convolution, ``caffe`` in the first 1x1."""
    model = cfg.get("model")
    backbone = model.get("backbone") if isinstance(model, Mapping) else None
    return str(backbone.get("style", "pytorch")) if isinstance(backbone, Mapping) else "pytorch"


def _class(entry: Mapping[str, Any]) -> str:
    """Returns the name of a type without its scope or, in pure Python configs, its module."""
    return str(entry.get("type")).rpartition(".")[2]
