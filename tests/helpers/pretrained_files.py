"""Checkpoints with random weights."""

import torch
from backbone_checks import scatter
from mmengine.config import Config
from mmpretrain.models import ResNet
from project import ROOT

from sspyr_mm.checkpoints.pretraining import build_model

NARROW = {"type": "ResNet", "depth": 18, "stem_channels": 8, "base_channels": 8}


def save_resnet18(path, *, width, seed):
    """Writes the tensors of a narrow ResNet-18, initialised as for training."""
    torch.manual_seed(seed)
    network = ResNet(18, stem_channels=width, base_channels=width)
    network.init_weights()
    torch.save(network.state_dict(), path)
    return str(path)


def pretrain(path, backbone, channels, *, train_dataloader=None, **model):
    """Writes a checkpoint as training does, of a model with random weights."""
    cfg = Config.fromfile(ROOT / "configs" / "ssprl" / "r18_small_50e.py")
    cfg.model.backbone = backbone
    cfg.model.neck.in_channels = channels
    cfg.model.update(model)
    cfg.train_dataloader.update(train_dataloader or {})
    network = scatter(build_model(cfg), seed=8)
    with torch.no_grad():  # position embeddings, layer scales
        for name, parameter in network.backbone.named_parameters():
            if name.endswith(("embed", "token", "gamma", "beta", "table")):
                parameter.normal_(0, 0.5)
    torch.save({"state_dict": network.state_dict(), "meta": {"cfg": cfg.pretty_text}}, path)
    return network
