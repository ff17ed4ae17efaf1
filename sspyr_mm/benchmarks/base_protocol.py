"""What a protocol is, what it is given and what it returns."""

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

__all__ = ["DataOptions", "Job", "Outcome", "Protocol", "Settings"]

_KNOWN_DATA = ("voc07", "coco14", "coco17")
"""Names of data sets that are recognised by their files."""


@dataclass(frozen=True)
class Settings:
    """What may differ from the paper's protocols.

    Args:
        size: Side of crops in pixels; of Mask R-CNN the shorter side of the images.
        epochs: Passes over the training images.
        learning_rates: Grid of linear classifiers.
        iterations: Steps of detection and segmentation; the schedule keeps its proportions.
        batch_size: Images per step of detection and segmentation; the learning rate is scaled with it.
        options: Changes of the protocol's config, which are applied last.
    """

    size: int | None = None
    epochs: int | None = None
    learning_rates: tuple[float, ...] | None = None
    iterations: int | None = None
    batch_size: int | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuses learning rates that cannot be.

        Raises:
            ValueError: If one is not a number > 0.
        """
        for rate in self.learning_rates or ():
            if not 0 < rate < math.inf:
                raise ValueError(f"--learning-rates must be numbers > 0, got {rate}")

    @property
    def changed(self) -> dict[str, Any]:
        """Settings that differ from the paper's."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class DataOptions:
    """Data sets, as options of the command line that have the names of these fields.

    Args:
        voc: VOC2007, or a folder above it.
        coco: Folder of COCO.
        voc_masks: VOC2012 with masks.
        train: Any labelled set.
        test: Its test part.
        train_split: Split of a VOC tree given as ``train``.
        test_split: Split of a VOC tree given as ``test``.
        train_images: Folder of the images of ``train``.
        test_images: Folder of the images of ``test``.
        name: Name of ``train`` and ``test`` in results.
    """

    voc: str | None = None
    coco: str | None = None
    voc_masks: str | None = None
    train: str | None = None
    test: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    train_images: str | None = None
    test_images: str | None = None
    name: str = "custom"

    def __post_init__(self) -> None:
        """Refuses names that cannot be part of a file's, and those of known data sets.

        Raises:
            ValueError: If the name is one.
        """
        if not re.fullmatch(r"[\w.-]+", self.name) or self.name in _KNOWN_DATA:
            raise ValueError(
                f"--name must be of letters, digits, '-', '_' and '.', and not one of {', '.join(_KNOWN_DATA)}; "
                f"got {self.name!r}"
            )

    def given(self, names: Collection[str]) -> list[str]:
        """Those of some options that are set."""
        return [name for name in names if getattr(self, name)]


@dataclass(frozen=True)
class Job:
    """One figure to measure.

    Args:
        network: Network to measure.
        data: Training and test images.
        seed: Random seed.
        work_dir: Folder of results and features, shared by all jobs.
        folder: Folder of the job's unfinished runs, shared with no other job.
        settings: What differs from the protocol.
    """

    network: "Network"
    data: Any
    seed: int
    work_dir: str
    folder: str
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """What a protocol measured.

    Args:
        figures: Figures of the test images, the protocol's metric among them; in percent.
        settings: Numbers of the run.
        further: What was chosen, and other figures.
    """

    figures: dict[str, Any]
    settings: dict[str, Any]
    further: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """How networks are measured.

    Args:
        name: Name in commands, tables and result files.
        help: What it is, with the paper's settings, in a few words.
        metric: Figure that tables show.
        config: File below ``configs/benchmarks``; empty if it runs no config.
        by_default: Whether it runs where no protocol is chosen.
        default_data: Names of the data sets on which it does; empty: all.
    """

    name: str
    help: str
    metric: str = "mAP"
    config: str = ""
    by_default: bool = True
    default_data: tuple[str, ...] = ()

    reads: ClassVar[tuple[str, ...]]
    """Fields of :class:`DataOptions`, at least one of which it needs."""
    settings: ClassVar[tuple[str, ...]]
    """Fields of :class:`Settings` that it has."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of others that hold its networks and metrics: another version makes another result."""
    also_shown: ClassVar[tuple[str, ...]] = ()
    """Further figures that tables show next to the metric."""

    @abstractmethod
    def load_data(self, options: DataOptions) -> "Sequence[MeasuredData]":
        """Reads the data that it is measured on.

        Args:
            options: Where the data are.

        Raises:
            ImportError: If a package is missing without which the data are of no use.
            ValueError: If no data are given, or they cannot be used.
        """

    @abstractmethod
    def run(self, job: Job) -> Outcome:
        """Trains and measures.

        Args:
            job: Network, data, seed, folders and settings.

        Raises:
            ValueError: If the network or the data do not allow it, or training diverges.
            ChildProcessError: If training fails.
        """

    @property
    def summary(self) -> str:
        """Its help, and whether it has to be chosen."""
        return self.help if self.by_default else f"{self.help}, only if chosen"

    def runs_by_default_on(self, data: "MeasuredData") -> bool:
        """Whether it runs on a data set where no protocol is chosen."""
        return self.by_default and (not self.default_data or data.name in self.default_data)

    def check_data(self, data: Any, seed: int) -> None:  # noqa: B027
        """Refuses data of which training would fail.

        Args:
            data: Training and test images.
            seed: Random seed.

        Raises:
            ValueError: If there are too few images.
        """

    def check_network(self, network: "Network", settings: Settings) -> None:
        """Refuses networks that the protocol is not for, and options that its config has no place for.

        Args:
            network: Network to measure.
            settings: What differs from the paper.

        Raises:
            ValueError: If there is one.
        """
        if self.config and settings.options:
            from sspyr_mm.benchmarks.training.recipes import apply_options

            apply_options(self.load_config(network), settings.options)

    def load_config(self, network: "Network") -> "Config":
        """Reads the protocol's config, with what its options are checked against.

        Args:
            network: Network to measure.
        """
        from sspyr_mm.benchmarks.training.recipes import load_recipe

        return load_recipe(self.config)
