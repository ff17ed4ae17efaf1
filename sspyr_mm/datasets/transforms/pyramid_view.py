"""Cropping of the regions of a decoded image in the workers of a loader, and their packing into tensors."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample

from sspyr_mm.datasets.transforms.boxed_views import overlapping_views, paste_views
from sspyr_mm.datasets.transforms.cropping import as_rgb, draw_crop, resize
from sspyr_mm.datasets.transforms.seeding import SampleSeed
from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.views import ViewsSpec


@TRANSFORMS.register_module()
class PyramidViewTransform(SampleSeed, BaseTransform):
    """Crops the regions of every group of views from an image; the device cuts them into patches and augments these.

    If the views share a region, one region is cropped and both views take their patches from it, so that
    patch m of V and patch m of V' show the same cell.

    Random numbers depend only on the seed of the run, the epoch and the sample: the views are the same for any number
    of workers or processes, and after a restart. :class:`ViewSeedHook` sets seed and epoch; without them (in a
    notebook, for example) the numbers come from torch's generator of the process, which ``DataLoader`` seeds per
    worker.

    Required keys: ``img`` (H, W, 3) uint8, or (H, W); ``sample_idx`` once an epoch is set. Modified keys: none; ``img``
    is removed. Added keys: ``regions``, a dict from group name to (R, region, region, 3) uint8, contiguous, and from
    ``<group>_boxes`` to (V, n, 4) float32 for groups with boxes; ``view_seed``, the int that seeds the augmentation on
    the device.

    Args:
        pyramid: Config of the pyramid, or a spec; default: the model's views, set by :class:`PyramidLinkHook`, which
            keeps the numbers of a config in one place.

    Source: paper, section B; official code, ``multicropdataset.py`` (geometry).
    Deviation: the official code uses Pillow's bilinear filter for all sizes; see :func:`resize`.
    """

    def __init__(self, pyramid: PyramidSpec | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._views = None if pyramid is None else PyramidSpec.from_config(pyramid).views

    @property
    def views(self) -> ViewsSpec:
        """Views to crop; raises ValueError if none are set."""
        if self._views is None:
            raise ValueError(
                "PyramidViewTransform has no pyramid: set pyramid=dict(s0=...), or keep PyramidLinkHook in "
                "the config, which sets it to that of the model"
            )
        return self._views

    def set_views(self, views: ViewsSpec) -> None:
        """Sets the views of the model; raises ValueError if this transform has different ones."""
        if self._views is not None and self._views != views:
            raise ValueError(
                f"PyramidViewTransform and the model have different pyramids, {self._views} and {views}: "
                "remove the transform's `pyramid`"
            )
        self._views = views

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crops the regions of one image, and enlarges small ones; raises ValueError if it is empty or not uint8."""
        image = as_rgb(results.pop("img"))
        view_seed = self.sample_seed(results)
        if view_seed is None:
            view_seed = int(torch.randint(2**62, ()))
        # Not NumPy's generator: the device uses it with the same seed, and single numbers take ten times as long.
        rng = random.Random(view_seed)
        regions = {}
        for group in self.views.groups:
            if group.paste or group.overlap:
                draw = paste_views if group.paste else overlapping_views
                regions[group.name], regions[f"{group.name}_boxes"] = draw(rng, image, group)
                continue
            crops = []
            for _ in range(group.num_regions):
                top, left, height, width = draw_crop(rng, image.shape[:2], group.area, group.aspect)
                crops.append(resize(image[top : top + height, left : left + width], group.region))
            # A single crop (a shared region) is not copied.
            regions[group.name] = np.stack(crops) if len(crops) > 1 else crops[0][None]
        return {**results, "regions": regions, "view_seed": view_seed}

    def __repr__(self) -> str:
        groups = self._views.groups if self._views else ()
        return f"{type(self).__name__}({', '.join(f'{g.name}: {g.region} px' for g in groups)})"


@TRANSFORMS.register_module()
class PackPyramidInputs(BaseTransform):
    """Packs the regions of an image for collation.

    Required keys: ``regions``, ``view_seed``. Added keys: ``inputs``, a dict from group name to (R, H, W, 3) uint8 with
    ``seed`` int64; ``data_samples``, a ``DataSample`` with those of the meta keys that exist. All other keys are
    dropped.

    Args:
        meta_keys: Keys of ``results`` to keep.
    """

    def __init__(self, meta_keys: Sequence[str] = ("sample_idx", "img_path")) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs one image."""
        # Channels stay last: the device permutes them, which saves a copy of the regions here.
        inputs = {name: torch.from_numpy(region) for name, region in results["regions"].items()}
        inputs["seed"] = torch.tensor(results["view_seed"])
        sample = DataSample(metainfo={k: results[k] for k in self.meta_keys if k in results})
        return {"inputs": inputs, "data_samples": sample}
