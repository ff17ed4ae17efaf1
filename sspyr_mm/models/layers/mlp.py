"""Norm layers from a config, and the MLP of projectors and predictors."""

from collections.abc import Mapping
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import nn


def build_norm(norm_cfg: Mapping[str, Any], channels: int) -> nn.Module:
    """Builds a norm layer without its name."""
    return build_norm_layer(dict(norm_cfg), channels)[1]


def build_mlp(
    in_channels: int,
    hid_channels: int,
    out_channels: int,
    *,
    norm_cfg: Mapping[str, Any] | None = None,
    last_bias: bool = True,
) -> nn.Sequential:
    """Builds Linear, norm (if ``norm_cfg`` is given; ``BN`` means ``BN1d``), ReLU and Linear."""
    layers: list[nn.Module] = [nn.Linear(in_channels, hid_channels)]
    if norm_cfg is not None:
        norm = {**norm_cfg, "type": "BN1d" if norm_cfg["type"] == "BN" else norm_cfg["type"]}
        layers.append(build_norm(norm, hid_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(hid_channels, out_channels, bias=last_bias))
