"""Conversion of mmpretrain's ViT, ConvNeXt and Swin to timm's names.

Each model of timm has its own layout, e.g. pointwise layers that are convolutions. A backbone is therefore matched
with a model of timm first, and rejected without a match.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmpretrain.models import ConvNeXt, SwinTransformer, VisionTransformer
from torch import Tensor

from sspyr_mm.checkpoints.formats.backbones import require_defaults

Config = Mapping[str, Any]
State = Mapping[str, Tensor]

# (channels, layers, heads, hidden channels) -> name, patch sizes that timm has
_VITS = {
    (192, 12, 3, 768): ("vit_tiny", (16,)),
    (384, 12, 6, 1536): ("vit_small", (8, 16, 32)),
    (768, 12, 12, 3072): ("vit_base", (8, 16, 32)),
    (1024, 24, 16, 4096): ("vit_large", (14, 16, 32)),
    (1280, 32, 16, 5120): ("vit_huge", (14,)),
}
_CONVNEXTS = {
    "convnext": ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge"),
    "convnextv2": ("atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "huge"),
}
_CONV_MLP = ("atto", "femto", "pico", "nano")
"""ConvNeXts whose pointwise layers are convolutions in timm."""
# (channels, depths, heads, window) -> name
_SWINS = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24), 7): "swin_tiny_patch4_window7_224",
    (96, (2, 2, 18, 2), (3, 6, 12, 24), 7): "swin_small_patch4_window7_224",
    (128, (2, 2, 18, 2), (4, 8, 16, 32), 7): "swin_base_patch4_window7_224",
    (128, (2, 2, 18, 2), (4, 8, 16, 32), 12): "swin_base_patch4_window12_384",
    (192, (2, 2, 18, 2), (6, 12, 24, 48), 7): "swin_large_patch4_window7_224",
    (192, (2, 2, 18, 2), (6, 12, 24, 48), 12): "swin_large_patch4_window12_384",
}


class TimmModel(NamedTuple):
    """Model of timm that equals a backbone: its name, the arguments of ``create_model``, its tensors."""

    name: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]


def to_timm(backbone: Config, state: State) -> TimmModel:
    """Translates a ``VisionTransformer``, ``ConvNeXt`` or ``SwinTransformer`` of mmpretrain, without a classifier.

    Raises ValueError if timm has no such model.
    """
    kind = str(backbone["type"]).removeprefix("mmpretrain.")
    if kind not in _KINDS:
        raise ValueError(f"no timm model is known for a backbone of type {kind}")
    return _KINDS[kind](backbone, state)


def _vit(backbone: Config, state: State) -> TimmModel:
    handled = ("arch", "img_size", "patch_size", "out_type", "interpolate_mode", "layer_scale_init_value")
    require_defaults(backbone, VisionTransformer, "timm", handled)
    if backbone.get("out_type") == "avg_featmap":
        raise ValueError("timm's ViT has no second norm after the mean of tokens (out_type='avg_featmap')")
    if backbone.get("layer_scale_init_value", 0.0):
        raise ValueError("timm's plain ViT has no layer scale (layer_scale_init_value)")
    arch = _arch(backbone, VisionTransformer.arch_zoo, "base")
    sizes = [arch[k] for k in ("embed_dims", "num_layers", "num_heads", "feedforward_channels")]
    (name, patches), patch = _VITS.get(tuple(sizes), ("", ())), backbone.get("patch_size", 16)
    if patch not in patches:
        raise ValueError(
            f"timm has no ViT of {sizes[0]} channels, {sizes[1]} layers, {sizes[2]} heads, {sizes[3]} hidden channels "
            f"and patches of {patch}"
        )
    rules = (
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.", "blocks."),
        (r"\.ln([12])\.", r".norm\1."),
        (r"^ln1\.", "norm."),
        *_FFN,
    )
    side = backbone.get("img_size", 224)
    return TimmModel(
        f"{name}_patch{patch}_224",
        {} if side == 224 else {"img_size": side},
        {_apply(rules, k): v for k, v in state.items()},
    )


def _convnext(backbone: Config, state: State) -> TimmModel:
    handled = ("arch", "use_grn", "layer_scale_init_value", "linear_pw_conv", "gap_before_final_norm")
    require_defaults(backbone, ConvNeXt, "timm", handled)
    arch = _arch(backbone, ConvNeXt.arch_settings, "tiny")
    family = "convnextv2" if backbone.get("use_grn") else "convnext"
    scaled = backbone.get("layer_scale_init_value", 1e-6) > 0
    sizes = tuple(arch["depths"]), tuple(arch["channels"])
    known = {
        (tuple(a["depths"]), tuple(a["channels"])): size
        for size, a in ConvNeXt.arch_settings.items()
        if size in _CONVNEXTS[family]
    }
    if sizes not in known or scaled is (family == "convnextv2"):
        raise ValueError(
            f"timm has no {family} of depths {sizes[0]} and channels {sizes[1]} "
            f"{'with' if scaled else 'without'} layer scale"
        )
    rules = (
        (r"^downsample_layers\.0\.", "stem."),
        (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
        (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
        (r"\.depthwise_conv\.", ".conv_dw."),
        (r"\.pointwise_conv([12])\.", r".mlp.fc\1."),
        (r"\.grn\.gamma$", ".mlp.grn.weight"),
        (r"\.grn\.beta$", ".mlp.grn.bias"),
        (r"^norm3\.", "head.norm."),
    )
    renamed = {_apply(rules, k): v for k, v in state.items() if not re.match(r"norm[0-2]\.", k)}
    as_conv = known[sizes] in _CONV_MLP
    for key in [k for k in renamed if re.search(r"\.mlp\.fc[12]\.weight$", k)]:
        matrix = renamed[key].flatten(1)
        renamed[key] = matrix[:, :, None, None] if as_conv else matrix
    return TimmModel(f"{family}_{known[sizes]}", {}, renamed)


def _swin(backbone: Config, state: State) -> TimmModel:
    require_defaults(backbone, SwinTransformer, "timm", ("arch", "img_size", "window_size", "pad_small_map"))
    arch = _arch(backbone, SwinTransformer.arch_zoo, "tiny")
    window = backbone.get("window_size", 7)
    sizes = arch["embed_dims"], tuple(arch["depths"]), tuple(arch["num_heads"]), window
    if sizes not in _SWINS:
        raise ValueError(
            f"timm has no Swin of {sizes[0]} channels, depths {sizes[1]}, heads {sizes[2]} and windows of {window}"
        )
    rules = (
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        # mmpretrain merges patches at the end of a stage, timm at the start of the next one.
        (r"^stages\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample."),
        (r"^stages\.", "layers."),
        (r"\.attn\.w_msa\.", ".attn."),
        (r"^norm3\.", "norm."),
        *_FFN,
    )
    renamed = {}
    for key, tensor in state.items():
        if key.endswith("relative_position_index") or re.match(r"norm[0-2]\.", key):
            continue  # derived from the window; outputs of earlier stages
        renamed[_apply(rules, key)] = _merging(tensor) if ".downsample." in key else tensor
    # If the map is not larger than a window, timm shifts only on request. For maps that are not multiples of the
    # window, mmpretrain pads and timm reduces the window: equal at 224 (or 384) pixels.
    arguments = {"always_partition": True} if backbone.get("pad_small_map") else {}
    return TimmModel(_SWINS[sizes], arguments, renamed)


def _merging(tensor: Tensor) -> Tensor:
    """Reorders inputs of a patch merging from channel, row, column (mmpretrain) to column, row, channel (timm)."""
    return tensor.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3).contiguous()


_FFN = ((r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."), (r"\.ffn\.layers\.1\.", ".mlp.fc2."))
_KINDS = {"VisionTransformer": _vit, "ConvNeXt": _convnext, "SwinTransformer": _swin}


def _arch(backbone: Config, zoo: Mapping[str, Any], default: str) -> Mapping[str, Any]:
    arch = backbone.get("arch", default)
    return arch if isinstance(arch, Mapping) else zoo[str(arch).lower()]


def _apply(rules: Any, name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
