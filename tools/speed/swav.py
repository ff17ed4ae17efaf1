"""Pipeline and step of SwAV as mmpretrain and lightly ship it."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image
from torch import Tensor, nn

from sspyr_mm.speed.training import Setting

SIDES = (224, 96)
"""Sides of the large and of the small views in SwAV's paper, in pixels."""
NUM_CROPS = (2, 6)
"""Numbers of large and of small views."""
_CONFIG = "swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.py"


@dataclass(frozen=True)
class Method:
    """A pre-training method to compare.

    Args:
        pipeline: Function of an image's path that returns its views.
        collate: Function of the views of several images that returns a batch.
        step: Function that trains on a batch.
    """

    pipeline: Callable[[str], Any]
    collate: Callable[..., Any]
    step: Callable[[Any], object]


def scaled_sides(side: int) -> tuple[int, int]:
    """Returns the sides of large and small views where the large ones have ``side`` pixels."""
    return side, round(side * SIDES[1] / SIDES[0])


def view_pixels(sides: tuple[int, int]) -> int:
    """Returns the number of pixels of an image that the encoder sees."""
    return sum(count * side**2 for count, side in zip(NUM_CROPS, sides, strict=True))


def mmpretrain_config() -> Config:
    """Reads mmpretrain's own config of SwAV."""
    import mmpretrain

    return Config.fromfile(Path(mmpretrain.__file__).parent / ".mim/configs" / _CONFIG)


def mmpretrain_pipeline(sides: tuple[int, int] = SIDES) -> Callable[[str], dict[str, Any]]:
    """Builds mmpretrain's pipeline with views of these sides."""
    steps = mmpretrain_config().train_dataloader.dataset.pipeline
    for views, side in zip(steps[1].transforms, sides, strict=True):
        views[0].scale = side
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        pipeline = [TRANSFORMS.build(step) for step in steps]

    def run(path: str) -> dict[str, Any]:
        results: Any = {"img_path": path}
        for step in pipeline:
            results = step(results)
        return results

    return run


def mmpretrain_swav(setting: Setting) -> Method:
    """Builds mmpretrain's model, loss and optimizer around a config's backbone.

    Sizes of neck and global prototypes, sides of views, precision and memory format are the config's.
    """
    theirs, neck = mmpretrain_config(), setting.cfg.model.neck
    size, prototypes = _embedding_size(setting.cfg), setting.spec.scales[0].num_prototypes
    theirs.model.backbone = setting.cfg.model.backbone
    theirs.model.neck.update(in_channels=neck.in_channels, hid_channels=neck.hid_channels, out_channels=size)
    theirs.model.head.loss.update(feat_dim=size, num_prototypes=prototypes)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        built = MODELS.build({**theirs.model, "data_preprocessor": theirs.data_preprocessor})
    model = _as_set(setting, built)
    wrapper = setting.wrap(model, theirs.optim_wrapper.optimizer)
    return Method(
        mmpretrain_pipeline(scaled_sides(setting.spec.scales[0].patch)),
        default_collate,
        partial(_mmpretrain_step, model, wrapper),
    )


def _embedding_size(cfg: Config) -> int:
    """Returns the embedding size, which neck or head state."""
    return cfg.model.neck.get("out_channels") or cfg.model.head.embed_dims


def _as_set(setting: Setting, model: nn.Module) -> nn.Module:
    """Moves a network in training mode to the device, in the config's memory format."""
    last = setting.cfg.model.get("channels_last", False)
    layout = torch.channels_last if last else torch.contiguous_format
    return revert_sync_batchnorm(model).to(setting.device, memory_format=layout).train()


def _mmpretrain_step(model: Any, wrapper: OptimWrapper, batch: Mapping[str, Any]) -> None:
    model.train_step(batch, wrapper)


def has_lightly() -> bool:
    """Returns whether lightly is installed."""
    return importlib.util.find_spec("lightly") is not None


def lightly_pipeline(sides: tuple[int, int] = SIDES) -> Callable[[str], list[Tensor]]:
    """Builds lightly's pipeline with views of these sides."""
    from lightly.transforms import SwaVTransform

    transform = SwaVTransform(crop_sizes=sides, crop_counts=NUM_CROPS)

    def run(path: str) -> list[Tensor]:
        with Image.open(path) as opened:
            return transform(opened.convert("RGB"))

    return run


def lightly_swav(setting: Setting) -> Method:
    """Builds lightly's head, loss and Sinkhorn around a config's backbone, with Adam as in lightly's example."""
    model = _as_set(setting, _LightlyModel(setting))
    wrapper = setting.wrap(model, {"type": "Adam", "lr": 1e-3})
    return Method(
        lightly_pipeline(scaled_sides(setting.spec.scales[0].patch)),
        torch.utils.data.default_collate,
        partial(_lightly_step, model, wrapper, setting.device),
    )


class _LightlyModel(nn.Module):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        neck, size = setting.cfg.model.neck, _embedding_size(setting.cfg)
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            self.backbone = MODELS.build(dict(setting.cfg.model.backbone))
        self.projector = SwaVProjectionHead(neck.in_channels, neck.hid_channels, size)
        self.prototypes = SwaVPrototypes(size, n_prototypes=setting.spec.scales[0].num_prototypes)
        self.criterion = SwaVLoss()

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        self.prototypes.normalize()
        scores = [self.prototypes(self._embed(view)) for view in views]
        return self.criterion(scores[: NUM_CROPS[0]], scores[NUM_CROPS[0] :])

    def _embed(self, view: Tensor) -> Tensor:
        return nn.functional.normalize(self.projector(self.backbone(view)[-1].mean((2, 3))), dim=1)


def _lightly_step(model: nn.Module, wrapper: OptimWrapper, device: torch.device, views: Sequence[Tensor]) -> None:
    moved = [view.to(device, non_blocking=True) for view in views]
    with wrapper.optim_context(model):
        loss = model(moved)
    wrapper.update_params(loss)
