"""The protocols of ``evaluate``: a class per kind, and the only list of them; no other module names a protocol.

Methods import the code they run, so that the command line can list protocols without torch.
"""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sspyr_mm.benchmarks.base_protocol import DataOptions, Job, Outcome, Protocol, Settings

if TYPE_CHECKING:
    from mmengine.config import Config

    from sspyr_mm.benchmarks.classification.multi_label_data import BenchmarkData
    from sspyr_mm.benchmarks.dense.dense_data import DenseData
    from sspyr_mm.benchmarks.networks import Network


class _Classification(Protocol):
    """Evaluation by image labels."""

    reads = ("voc", "coco", "train", "test")

    def load_data(self, options: DataOptions) -> "list[BenchmarkData]":
        """Reads every given data set; see :meth:`Protocol.load_data`."""
        from sspyr_mm.benchmarks.classification.multi_label_data import load_given

        return load_given(options)


class Linear(_Classification):
    """A linear classifier on frozen features."""

    settings = ("size", "epochs", "learning_rates")

    def run(self, job: Job) -> Outcome:
        """Trains the classifiers of all learning rates; see :meth:`Protocol.run`."""
        from sspyr_mm.benchmarks.classification.linear import measure_linear

        return measure_linear(job)


@dataclass(frozen=True, kw_only=True)
class FineTuning(_Classification):
    """Training of the whole network."""

    percent: int = 100  # percentage of the training images to use
    rates: tuple[float, ...] = ()  # learning rates to try for backbone and head; empty: those of the config
    size: int | None = None  # side of crops in pixels; None: that of the config

    settings = ("size", "epochs", "options")

    @property
    def grid(self) -> list[tuple[float, float]]:
        """Pairs of learning rates of backbone and head."""
        return [(backbone, head) for backbone in self.rates for head in self.rates]

    def check_data(self, data: "BenchmarkData", seed: int) -> None:
        """Raises for too few images; see :meth:`Protocol.check_data`."""
        from sspyr_mm.benchmarks.classification.finetune import choose_images

        choose_images(self, data, seed)

    def load_config(self, network: "Network") -> "Config":
        """Reads the config with the backbone of the network; see :meth:`Protocol.load_config`."""
        cfg = super().load_config(network)
        cfg.model.backbone = dict(network.checkpoint.backbone)
        return cfg

    def run(self, job: Job) -> Outcome:
        """Chooses learning rates, then trains; see :meth:`Protocol.run`."""
        from sspyr_mm.benchmarks.classification.finetune import run_finetune

        return run_finetune(self, job)


class Dense(Protocol):
    """Training of a detector or segmenter on a ResNet."""

    settings = ("size", "iterations", "batch_size", "options")
    packages = ("mmdet", "mmseg", "pycocotools")
    scale: ClassVar[float] = 1.0  # factor from the evaluator's figures to percent

    def check_network(self, network: "Network", settings: Settings) -> None:
        """Raises for networks other than ResNets; see :meth:`Protocol.check_network`."""
        from sspyr_mm.benchmarks.dense.transfer import check_backbone

        check_backbone(self.name, network.checkpoint.backbone, network.name)
        super().check_network(network, settings)

    def run(self, job: Job) -> Outcome:
        """Trains the detector or segmenter; see :meth:`Protocol.run`."""
        from sspyr_mm.benchmarks.dense.run import run_dense

        return run_dense(self, job)


class Detection(Dense):
    """Object detection and instance segmentation with mmdet."""

    metric = "segm_mAP"
    also_shown = ("bbox_mAP",)
    reads = ("coco",)
    scale = 100.0

    def load_data(self, options: DataOptions) -> "list[DenseData]":
        """Reads COCO with boxes and masks; see :meth:`Protocol.load_data`."""
        from sspyr_mm.benchmarks.dense.read_coco import read_coco_instances

        if options.coco is None:
            raise ValueError(f"{self.name} runs on COCO: give --coco DIR")
        if not importlib.util.find_spec("mmcv._ext"):  # imported by mmdet
            raise ImportError(
                f"{self.name} needs mmcv's compiled ops, which this environment lacks: `bash tools/setup_env.sh` "
                "without --no-ops builds them (15 minutes, once; for GPUs with nvcc). Segmentation does not need them"
            )
        return [read_coco_instances(options.coco)]


class Segmentation(Dense):
    """Semantic segmentation with mmseg."""

    metric = "mIoU"
    reads = ("voc_masks",)

    def load_data(self, options: DataOptions) -> "list[DenseData]":
        """Reads VOC with class masks; see :meth:`Protocol.load_data`."""
        from sspyr_mm.benchmarks.dense.read_voc import read_voc_masks

        if options.voc_masks is None:
            raise ValueError(f"{self.name} runs on VOC with masks: give --voc-masks DIR")
        return [read_voc_masks(options.voc_masks)]


_COCO = ("coco14", "coco17")
_RATES = (0.001, 0.01, 0.1)
"""Source: paper, semi-supervised learning: the rates of backbone and head, from a grid in [.001, .1]."""


def _semi(percent: int) -> FineTuning:
    return FineTuning(
        name=f"semi{percent}",
        help=f"fine-tuning on {percent} % of the training images (224 px, 20 epochs)",
        config=f"classification/semi_coco14_{percent}pct_20e.py",
        default_data=_COCO,
        percent=percent,
        rates=_RATES,
    )


PROTOCOLS: tuple[Protocol, ...] = (
    Linear(name="linear", help="linear classifier on frozen features (224 px, 50 epochs)"),
    *map(_semi, (1, 10, 100)),
    FineTuning(
        name="asl",
        help="fine-tuning with the asymmetric loss (448 px, 40 epochs)",
        config="classification/asl_coco14_40e.py",
        default_data=_COCO,
    ),
    FineTuning(
        name="asl224", help="asl at 224 px", config="classification/asl_coco14_40e.py", by_default=False, size=224
    ),
    Detection(
        name="mask_rcnn_coco",
        help="detection and instance segmentation (800 px, 15000 steps of 16 images)",
        config="mmdetection/mask-rcnn_r50_fpn_15k_coco14.py",
        by_default=False,
    ),
    Segmentation(
        name="fcn_voc",
        help="semantic segmentation (512 px, 20000 steps of 16 images)",
        config="mmsegmentation/fcn_r50-d8_20k_voc12aug-512x512.py",
    ),
)


def find_protocol(name: str) -> Protocol:
    """Returns the protocol with a name; raises ValueError if the name is unknown."""
    for protocol in PROTOCOLS:
        if protocol.name == name:
            return protocol
    names = ", ".join(one.name for one in PROTOCOLS)
    raise ValueError(f"There is no protocol {name!r}: choose one of {names}")
