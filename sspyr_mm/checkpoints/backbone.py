"""The backbone alone, for use elsewhere."""

import os

import torch

from sspyr_mm.checkpoints.pretraining import load_pretraining


def export_backbone(source: str, target: str) -> int:
    """Writes the backbone of a pre-training checkpoint in the form ``init_cfg`` reads.

    The names are the backbone's own, without prefix:
    ``backbone.init_cfg=dict(type='Pretrained', checkpoint=TARGET)`` in mmpretrain, mmdet and mmseg.

    Args:
        source: Pre-training checkpoint.
        target: File to write; it appears only when it is whole.

    Returns:
        Number of tensors written.

    Raises:
        ValueError: As :func:`load_pretraining`.
    """
    cfg, model = load_pretraining(source)
    state = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    meta = {"source": os.path.basename(source), "backbone": cfg.model.backbone.to_dict()}
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    partial = f"{target}.partial"
    torch.save({"state_dict": state, "meta": meta}, partial)
    os.replace(partial, target)
    return len(state)
