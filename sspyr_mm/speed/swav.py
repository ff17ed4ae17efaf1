"""SwAV as mmpretrain and lightly ship it, pipeline and step, to be timed beside ours."""

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
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image
from torch import Tensor, nn

from sspyr_mm.models.layers import pool

SIDES = (224, 96)
"""Of the two large and the six small views, in pixels: those of SwAV's paper."""
NUM_CROPS = (2, 6)
_CONFIG = "swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.py"


@dataclass(frozen=True)
class Swav:
    """One of the others.

    Args:
        pipeline: Path of an image to its eight views.
        collate: Several of them to a batch.
        step: Trains on a batch.
    """

    pipeline: Callable[[str], Any]
    collate: Callable[..., Any]
    step: Callable[[Any], object]


def scaled_sides(side: int) -> tuple[int, int]:
    """Sides of the views where the large ones are of ``side`` pixels.

    Args:
        side: In pixels.
    """
    return side, round(side * SIDES[1] / SIDES[0])


def view_pixels(sides: tuple[int, int]) -> int:
    """Pixels that an encoder sees of an image.

    Args:
        sides: Of large and small views.
    """
    return sum(count * side**2 for count, side in zip(NUM_CROPS, sides, strict=True))


def mmpretrain_config() -> Config:
    """Mmpretrain's own config of SwAV."""
    import mmpretrain

    return Config.fromfile(Path(mmpretrain.__file__).parent / ".mim/configs" / _CONFIG)


def mmpretrain_pipeline(sides: tuple[int, int] = SIDES) -> Callable[[str], dict[str, Any]]:
    """Mmpretrain's views of an image.

    Args:
        sides: Of large and small views.
    """
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


def mmpretrain_swav(cfg: Config, device: torch.device) -> Swav:
    """Mmpretrain's model, loss and optimiser around a config's backbone.

    Args:
        cfg: Pre-training config: its backbone, sizes of neck and global prototypes, sides of views and precision.
        device: Where.
    """
    theirs, neck = mmpretrain_config(), cfg.model.neck
    theirs.model.backbone = cfg.model.backbone
    theirs.model.neck.update(
        {n: neck[n] for n in ("in_channels", "hid_channels", "out_channels", "norm_cfg")}
    )
    theirs.model.head.loss.update(
        feat_dim=neck.out_channels, num_prototypes=cfg.model.pyramid.s0.num_prototypes
    )
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        built = MODELS.build({**theirs.model, "data_preprocessor": theirs.data_preprocessor})
        model = revert_sync_batchnorm(built).to(device).train()
        wrapper = build_optim_wrapper(
            model, {**theirs.optim_wrapper, "type": cfg.optim_wrapper.type}
        )
    return Swav(
        mmpretrain_pipeline(scaled_sides(cfg.model.pyramid.s0.patch)),
        default_collate,
        partial(_mmpretrain_step, model, wrapper),
    )


def _mmpretrain_step(model: Any, wrapper: OptimWrapper, batch: Mapping[str, Any]) -> None:
    model.train_step(batch, wrapper)


def has_lightly() -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec("lightly") is not None


def lightly_pipeline(sides: tuple[int, int] = SIDES) -> Callable[[str], list[Tensor]]:
    """Lightly's views of an image.

    Args:
        sides: Of large and small views.
    """
    from lightly.transforms import SwaVTransform

    transform = SwaVTransform(crop_sizes=sides, crop_counts=NUM_CROPS)

    def run(path: str) -> list[Tensor]:
        with Image.open(path) as opened:
            return transform(opened.convert("RGB"))

    return run


def lightly_swav(cfg: Config, device: torch.device) -> Swav:
    """Lightly's head, loss and Sinkhorn around a config's backbone, with torch's Adam, as its example has it.

    Args:
        cfg: As of :func:`mmpretrain_swav`.
        device: Where.
    """
    model = _LightlyModel(cfg).to(device).train()
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        wrapper = build_optim_wrapper(
            model, {"type": cfg.optim_wrapper.type, "optimizer": {"type": "Adam", "lr": 1e-3}}
        )
    return Swav(
        lightly_pipeline(scaled_sides(cfg.model.pyramid.s0.patch)),
        torch.utils.data.default_collate,
        partial(_lightly_step, model, wrapper, device),
    )


class _LightlyModel(nn.Module):
    def __init__(self, cfg: Config) -> None:
        super().__init__()
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        neck = cfg.model.neck
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            self.backbone = revert_sync_batchnorm(MODELS.build(dict(cfg.model.backbone)))
        self.projector = SwaVProjectionHead(neck.in_channels, neck.hid_channels, neck.out_channels)
        self.prototypes = SwaVPrototypes(
            neck.out_channels, n_prototypes=cfg.model.pyramid.s0.num_prototypes
        )
        self.criterion = SwaVLoss()

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        self.prototypes.normalize()
        scores = [self.prototypes(self._embed(view)) for view in views]
        return self.criterion(scores[: NUM_CROPS[0]], scores[NUM_CROPS[0] :])

    def _embed(self, view: Tensor) -> Tensor:
        return nn.functional.normalize(self.projector(pool(self.backbone(view))), dim=1)


def _lightly_step(
    model: nn.Module, wrapper: OptimWrapper, device: torch.device, views: Sequence[Tensor]
) -> None:
    moved = [view.to(device, non_blocking=True) for view in views]
    with wrapper.optim_context(model):
        loss = model(moved)
    wrapper.update_params(loss)
