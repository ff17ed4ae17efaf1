"""Packing of regions into tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample


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
