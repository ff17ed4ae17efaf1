"""The base class of protocols, with its inputs and outputs."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from mmengine.config import Config

    from sspyr_mm.benchmarks.classification.multi_label_data import MeasuredData
    from sspyr_mm.benchmarks.networks import Network

_KNOWN_DATA = ("voc07", "coco14", "coco17")  # data sets that are detected by their files


@dataclass(frozen=True)
class Settings:
    """Changes of a protocol's published settings; None keeps a setting."""

    size: int | None = None  # side of crops in pixels; for Mask R-CNN the shorter side of images
    epochs: int | None = None
    learning_rates: tuple[float, ...] | None = None  # grid of the linear classifiers, each > 0
    iterations: int | None = None  # steps of detection and segmentation; schedules keep their proportions
    batch_size: int | None = None  # images per step of detection and segmentation; the learning rate scales with it
    options: Mapping[str, Any] | None = None  # overrides of the protocol's config, applied last

    def __post_init__(self) -> None:
        for rate in self.learning_rates or ():
            if not 0 < rate < math.inf:
                raise ValueError(f"--learning-rates must be numbers > 0, got {rate}")

    @property
    def changed(self) -> dict[str, Any]:
        """Settings that differ from the published ones."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class DataOptions:
    """Paths of data sets, named like the options of the command line."""

    voc: str | None = None  # VOC2007 or a parent folder
    coco: str | None = None
    voc_masks: str | None = None  # VOC2012 with class masks
    train: str | None = None  # any labelled set
    test: str | None = None  # its test set
    train_split: str | None = None  # split, if `train` is a VOC tree
    test_split: str | None = None
    train_images: str | None = None  # folder of the images, if not next to `train`
    test_images: str | None = None
    name: str = "custom"  # name of `train` and `test` in results and file names

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name) or self.name in _KNOWN_DATA:
            raise ValueError(
                "--name must consist of letters, digits, '-', '_' and '.', and must not be one of "
                f"{', '.join(_KNOWN_DATA)}; got {self.name!r}"
            )

    def given(self, names: Collection[str]) -> list[str]:
        """Returns the names of those options that are set."""
        return [name for name in names if getattr(self, name)]


@dataclass(frozen=True)
class Job:
    """One evaluation: a network, the data, a seed and settings."""

    network: "Network"
    data: Any
    seed: int
    work_dir: str  # results and features, shared by all jobs
    folder: str  # unfinished runs of this job only
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """Figures of one evaluation."""

    figures: dict[str, Any]  # of the test images, in percent, including the protocol's metric
    settings: dict[str, Any]  # of the run, for its result
    further: dict[str, Any]  # chosen learning rates and other figures


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """One way to evaluate networks."""

    name: str  # in commands, tables and result files
    help: str  # description with the paper's settings, in a few words
    config: str = ""  # file below configs/benchmarks; empty for a protocol without one
    by_default: bool = True  # whether it runs if no protocol is chosen
    default_data: tuple[str, ...] = ()  # names of the data sets it then runs on; empty for all

    metric: ClassVar[str] = "mAP"  # figure that tables show
    also_shown: ClassVar[tuple[str, ...]] = ()  # further figures that tables show next to the metric
    reads: ClassVar[tuple[str, ...]]  # fields of DataOptions, at least one of which it needs
    settings: ClassVar[tuple[str, ...]]  # fields of Settings that it supports
    packages: ClassVar[tuple[str, ...]] = ()  # of its networks and metrics; results of other versions are not reused

    @abstractmethod
    def load_data(self, options: DataOptions) -> "Sequence[MeasuredData]":
        """Reads the data sets to evaluate on.

        Raises ImportError if a required package is missing, ValueError if no data are given or they cannot be used.
        """

    @abstractmethod
    def run(self, job: Job) -> Outcome:
        """Trains and evaluates.

        Raises ValueError if the network or the data cannot be used or training diverges, ChildProcessError if it fails.
        """

    def check_data(self, data: Any, seed: int) -> None:  # noqa: B027
        """Raises ValueError if there are too few images for training."""

    def check_network(self, network: "Network", settings: Settings) -> None:
        """Raises ValueError if the protocol does not support the network, or its config the options."""
        if settings.options:
            from sspyr_mm.benchmarks.training.recipes import apply_options

            apply_options(self.load_config(network), settings.options)

    def load_config(self, network: "Network") -> "Config":
        """Reads the config that options are checked against."""
        from sspyr_mm.benchmarks.training.recipes import load_recipe

        return load_recipe(self.config)
