"""What detection and segmentation are measured by."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sspyr_mm.checkpoints.formats.targets import RESNET_VARIANTS


@dataclass(frozen=True)
class DenseProtocol:
    """How a network is measured.

    Args:
        config: File below ``configs/benchmarks``.
        metric: The figure that counts.
        scale: From the evaluator's figures to percent.
    """

    config: str
    metric: str
    scale: float


DENSE = {
    "mask_rcnn_coco": DenseProtocol(
        "mmdetection/mask-rcnn_r50_fpn_15k_coco14.py", "segm_mAP", 100.0
    ),
    "fcn_voc": DenseProtocol("mmsegmentation/fcn_r50-d8_20k_voc12aug-512x512.py", "mIoU", 1.0),
}
BATCH = 16
"""Images a step. Source: paper, both protocols."""


def check_backbone(protocol: str, backbone: Mapping[str, Any], name: str) -> None:
    """Refuses networks that a protocol is not for.

    Args:
        protocol: One of ``DENSE``.
        backbone: mmpretrain config.
        name: What the network is called.

    Raises:
        ValueError: If it is no ResNet, or its stages have other strides or dilations than a ResNet's.
    """
    if backbone["type"] not in RESNET_VARIANTS:
        raise ValueError(
            f"{protocol} is for ResNets; {name} is a {backbone['type']}: leave it out, or choose another protocol "
            "with --protocol"
        )
    for key, usual in (("strides", (1, 2, 2, 2)), ("dilations", (1, 1, 1, 1)), ("num_stages", 4)):
        if (came := backbone.get(key, usual)) != usual and tuple(came) != usual:
            raise ValueError(
                f"{protocol} sets the {key} of its network itself, for weights of a usual ResNet {usual}; {name} was "
                f"trained with {came}: leave it out"
            )


def check_compiled_ops(protocol: str) -> None:
    """Refuses detection without mmcv's compiled ops, which mmdet imports.

    Args:
        protocol: One of ``DENSE``.

    Raises:
        ImportError: If they are not there.
    """
    if DENSE[protocol].config.startswith("mmdetection") and not importlib.util.find_spec(
        "mmcv._ext"
    ):
        raise ImportError(
            f"{protocol} needs mmcv's compiled ops, which this environment lacks: `bash tools/setup_env.sh` without "
            "--no-ops builds them (15 minutes, once; for GPUs with nvcc). fcn_voc does without"
        )
