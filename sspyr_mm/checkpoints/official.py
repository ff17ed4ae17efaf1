"""Conversion of the official code's checkpoints to ours, including heads."""

import os
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from sspyr_mm.checkpoints.backbone import completed, open_output
from sspyr_mm.checkpoints.formats.backbones import complete
from sspyr_mm.checkpoints.formats.locate import locate
from sspyr_mm.checkpoints.formats.weights import Selection, find_weights, under
from sspyr_mm.checkpoints.pretraining import build_model
from sspyr_mm.files import configs_dir
from sspyr_mm.tensor_files import FilePath, read_checkpoint

OFFICIAL_CONFIG = "ssprl/r50_coco_200e_official.py"


def convert_official(
    path: FilePath, out: FilePath, *, allow_pickle: bool = False, select: Selection | None = None
) -> int:
    """Converts a checkpoint of the official code to one from which training can continue.

    Its config is ``configs/ssprl/r50_coco_200e_official.py`` with the sizes of the tensors. Settings that weights do
    not determine (sizes of regions and patches, temperatures, loss weights) are that config's. Continue training with
    ``tools/train.py CONFIG --cfg-options load_from=OUT``.

    Prototypes and rows of g are normalised to unit length, as the official code does before each forward pass and this
    project after each step. Official checkpoints do not contain the queues, which start empty.

    Writes ``out`` atomically and returns the number of its tensors. The other arguments are those of
    :func:`read_backbone`; the prefix of ``select`` is that of the whole model. Raises ValueError if the file is not
    such a checkpoint, or is incomplete.

    Source: official code, ``src/resnet50.py``: head i of a list over local levels. With ``--grid_perside 2 3`` the
        levels are the 2x2 and the 3x3 patches, our scales 1 and 2.
    """
    weights = find_weights(read_checkpoint(path, allow_pickle=allow_pickle), path, select)
    checkpoint = completed(locate(weights), weights)
    if checkpoint.source != "ssprl_official":
        raise ValueError(
            f"{path} has the format {checkpoint.source}: only checkpoints of the official SS-PRL code can be converted "
            "to whole pre-training checkpoints. Export the backbone of others, e.g. with --to mmpretrain"
        )
    renamed = {_ours(name): tensor for name, tensor in under(checkpoint.prefix, weights.tensors).items()}
    cfg = _config(renamed, checkpoint.backbone, path)
    model = build_model(cfg)
    queues = {k: v for k, v in model.state_dict().items() if k.startswith("head.queues.")}
    heads = {k: v for k, v in renamed.items() if k.startswith(("neck.", "head."))}
    backbone = {f"backbone.{k}": v for k, v in checkpoint.state_dict.items()}
    what = f"{path}, read as a checkpoint of the official code,"
    state = complete({**backbone, **heads, **queues}, model, what=what)
    model.load_state_dict(state)
    model.head.normalize_()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    meta = {"cfg": cfg.pretty_text, "source": os.path.basename(path), "format": checkpoint.source}
    meta["sha256"] = checkpoint.sha256
    with open_output(out, path) as file:
        torch.save({"state_dict": state, "meta": meta}, file)
    return len(state)


def _ours(name: str) -> str:
    """Converts a name of the official heads to ours: their local level 0 is our scale 1."""
    module, _, rest = name.partition(".")
    if module == "projection_head":
        return f"neck.projectors.s0.{rest}"
    if module == "ptypes":
        return f"head.prototypes.s0.{rest}"
    for theirs, ours in (
        ("l_pro_head", "neck.projectors.{}."),
        ("local_ptypes", "head.prototypes.{}."),
        ("l2g_ptypes", "head.correlation.{}.linear."),
    ):
        level = module.removeprefix(theirs)
        if level != module and level.isdecimal():
            return ours.format(f"s{int(level) + 1}") + rest
    return name


def _config(tensors: dict[str, Tensor], backbone: dict[str, Any], path: FilePath) -> Config:
    cfg = Config.fromfile(configs_dir() / OFFICIAL_CONFIG)
    scales = list(cfg.model.pyramid)
    prototypes = {s: tensors.get(f"head.prototypes.{s}.weight") for s in scales}
    hidden = tensors.get("neck.projectors.s0.0.weight")
    last = tensors.get("neck.projectors.s0.3.weight")
    if any(t is None or t.ndim != 2 for t in (hidden, last, prototypes["s0"])):
        raise ValueError(
            f"{path} lacks projection_head.0, projection_head.3 or ptypes: only checkpoints with two-layer projectors "
            "and prototypes are supported"
        )
    assert hidden is not None and last is not None
    for scale, weight in prototypes.items():
        if weight is None:
            cfg.model.pyramid[scale] = None
        else:
            cfg.model.pyramid[scale].num_prototypes = len(weight)
    sizes = {"in_channels": hidden.shape[1], "hid_channels": hidden.shape[0]}
    cfg.model.neck.update(**sizes, out_channels=last.shape[0])
    cfg.model.head.embed_dims = last.shape[0]
    cfg.model.backbone = {**cfg.model.backbone, **backbone}
    return cfg
