"""What the config inside of an OpenMMLab checkpoint says about its inputs and its strides."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sspyr_mm.checkpoints.config_text import parse_config
from sspyr_mm.checkpoints.formats.sources import IMAGENET_MEAN, IMAGENET_STD

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """Of RGB inputs, on the scale of 0 to 255."""

    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD


def foreign_config(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config in a checkpoint of OpenMMLab.

    Args:
        meta: The checkpoint's ``meta``.

    Returns:
        The config; empty where there is none, or none that is plain data.
    """
    try:
        return parse_config(meta["cfg"]).to_dict()
    except (KeyError, ValueError):
        return {}


def read_normalisation(cfg: Mapping[str, Any], *, where: str) -> Normalisation:
    """Finds the normalisation in a config.

    Args:
        cfg: Config of any OpenMMLab project, also of the time before ``data_preprocessor``.
        where: The file, for messages.

    Returns:
        What the config says, ImageNet's where it says nothing.

    Raises:
        ValueError: If the network was trained on BGR inputs.
    """
    model = cfg.get("model")
    candidates = (
        model.get("data_preprocessor") if isinstance(model, Mapping) else None,
        cfg.get("data_preprocessor"),
        cfg.get("img_norm_cfg"),
    )
    for entry in candidates:
        if not isinstance(entry, Mapping):
            continue
        if entry.get("type") != "PyramidAugment":  # which always sees RGB
            if entry.get("mean") is None or entry.get("std") is None:
                continue
            if not (entry.get("to_rgb") or entry.get("bgr_to_rgb")):
                raise ValueError(
                    f"{where} was trained on BGR inputs (mean {entry['mean']}, no to_rgb): only networks of RGB inputs "
                    "are converted"
                )
        mean, std = entry.get("mean", IMAGENET_MEAN), entry.get("std", IMAGENET_STD)
        return Normalisation(triple(mean, where=where), triple(std, where=where))
    return Normalisation()


def triple(value: Any, *, where: str) -> Triple:
    """Three numbers.

    Args:
        value: From a file.
        where: The file, for messages.

    Returns:
        The numbers.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        red, green, blue = (float(number) for number in value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: mean and std must be three numbers each, got {value!r}"
        ) from None
    return red, green, blue


def style(cfg: Mapping[str, Any]) -> str:
    """Where a config's bottlenecks stride: ``pytorch`` in the 3x3 convolution, ``caffe`` in the first 1x1."""
    model = cfg.get("model")
    backbone = model.get("backbone") if isinstance(model, Mapping) else None
    return str(backbone.get("style", "pytorch")) if isinstance(backbone, Mapping) else "pytorch"
