"""The rows of the paper's tables: which config pre-trains each, at full size and at a size for CPUs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sspyr_mm.benchmarks.results.rows import PUBLISHED


@dataclass(frozen=True, kw_only=True)
class System:
    """Row of a table."""

    name: str  # as in the published results
    folder: str | None = None  # of configs; None: random weights
    full: str = "r50_coco_200e"  # config of the full size
    mini: str = "r18_small"  # config of the mini size
    images: str = "coco"  # training images of the full size: coco or imagenet
    mini_options: Mapping[str, Any] = field(default_factory=dict)  # changes of the mini config
    cost: float = 1.0  # compute per image relative to MoCo v2, at full size
    mini_rate: float = 275.0  # images per second at mini size on two CPU cores, measured
    note: str = ""  # on measured results

    @property
    def label(self) -> str:
        """Name of what is trained here."""
        return f"{self.name}, a reconstruction" if self.note else self.name

    @property
    def slug(self) -> str:
        """Folder name."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())


@dataclass(frozen=True, kw_only=True)
class Table:
    """Table of the paper.

    Downstream flags of the mini size make the protocol small enough for two CPU cores.
    """

    name: str
    protocol: str
    data: str  # name of the data set in published results
    data_title: str  # the same for readers
    measure: str  # protocol and metric
    needs: str  # option of `evaluate` that names the data of the full size
    hours: float  # estimate of the protocol on one GPU, per network
    mini_seconds: float = 0.0  # estimate at mini size, without scenes
    mini_seconds_per_scene: float = 0.0
    mini_flags: tuple[str, ...]  # options of `evaluate` at mini size, {data} is the folder of the scenes
    systems: tuple[System, ...]

    def published(self, system: System) -> float:
        """Returns the published result of a system, in percent."""
        found = [
            r.value for r in PUBLISHED if (r.protocol, r.data, r.network) == (self.protocol, self.data, system.name)
        ]
        if len(found) != 1:
            raise ValueError(f"Table {self.name} has {len(found)} published results of {system.name}")
        return found[0]


_EPSILON = {"model.head.assigner.epsilon": 0.005}
"""SwAV's remedy for a loss that stays at ln K; small batches need it."""
_RECONSTRUCTION = "a reconstruction from the abstract and figure 3, since the authors published no code"


def _methods(images: str) -> tuple[System, ...]:
    label = {"coco": "COCO", "imagenet": "ImageNet"}[images]
    full = {"coco": "r50_coco_200e", "imagenet": "r50_in1k_100e"}[images]
    rows: tuple[tuple[str, str, float, float, dict[str, Any]], ...] = (
        ("MoCo v2", "mocov2", 1.0, 275.0, {}),
        ("SwAV", "swav", 2.3, 121.0, _EPSILON),
        ("BYOL", "byol", 2.0, 157.0, {}),
        ("DenseCL", "densecl", 1.15, 80.0, {}),
        ("DetCo", "detco", 1.75, 94.0, {}),
        ("MaskCo", "maskco", 1.08, 122.0, {}),
        ("InsLoc", "insloc", 2.3, 138.0, {}),
    )
    others = [
        System(
            name=f"{name} ({label})",
            folder=folder,
            full=full,
            images=images,
            cost=cost,
            mini_rate=rate,
            mini_options=options,
            note=_RECONSTRUCTION if folder == "maskco" else "",
        )
        for name, folder, cost, rate, options in rows
    ]
    ours = System(
        name=f"SS-PRL ({label})",
        folder="ssprl",
        full=full,
        images=images,
        mini="r18_toy_scenes_40e",
        cost=5.5,
        mini_rate=81.0,
        mini_options=_EPSILON,
    )
    return (*others, ours)


def _pyramid(name: str, full: str, mini: Mapping[str, Any], cost: float = 3.0, rate: float = 81.0) -> System:
    options = {**_EPSILON, **mini}
    return System(
        name=name, folder="ssprl", full=full, mini="r18_toy_scenes_40e", cost=cost, mini_rate=rate, mini_options=options
    )


_RANDOM = System(name="Random init")
_ONE = _pyramid("SS-PRL, scale 0 alone", "r50_coco_200e_1scale", {"model.pyramid.s1": None}, cost=1.5, rate=276.0)
_SHARED = _pyramid(
    "SS-PRL, two scales, shared prototypes", "r50_coco_200e_2scales_shared", {"model.head.shared_prototypes": True}
)
_TWO = _pyramid("SS-PRL, two scales", "r50_coco_200e_2scales", {})


def _counts(full: str, name: str, coarse: int, fine: int) -> System:
    """A row of table S-D; the mini size has a fifth of the prototypes."""
    options = {"model.pyramid.s0.num_prototypes": coarse // 5, "model.pyramid.s1.num_prototypes": fine // 5}
    return _pyramid(f"SS-PRL, two scales, {name}", f"r50_coco_200e_2scales_{full}", options)


_LINEAR = (
    "--train",
    "{data}/annotations/instances_train2017.json",
    "--test",
    "{data}/annotations/instances_val2017.json",
)

_MINI_FCN = (
    "--cfg-options",
    # A quarter of FCN's channels, as the mini size has a quarter of ResNet-18's.
    "model.decode_head.channels=128",
    "model.auxiliary_head.channels=64",
    # Within so few steps SGD predicts background alone.
    "optim_wrapper.optimizer._delete_=True",
    "optim_wrapper.optimizer.type=AdamW",
    "optim_wrapper.optimizer.lr=0.001",
)

TABLES = (
    Table(
        name="S-A",
        protocol="fcn_voc",
        data="voc12aug",
        data_title="VOC 2012",
        measure="FCN mIoU",
        needs="voc_masks",
        hours=3.0,
        mini_seconds=500.0,  # 2,000 iterations, whatever the number of scenes
        mini_seconds_per_scene=0.015,  # test images
        mini_flags=(
            "--voc-masks",
            "{data}",
            "--size",
            "64",
            "--iterations",
            "2000",
            "--batch-size",
            "16",
            *_MINI_FCN,
        ),
        systems=(_RANDOM, *_methods("coco")),
    ),
    Table(
        name="S-B",
        protocol="asl",
        data="coco14",
        data_title="COCO 2014",
        measure="ASL mAP",
        needs="coco",
        hours=20.0,
        mini_seconds_per_scene=0.03,  # five epochs
        mini_flags=(*_LINEAR, "--size", "64", "--epochs", "5"),
        systems=(_RANDOM, *_methods("coco"), *_methods("imagenet")),
    ),
    Table(
        name="S-C",
        protocol="linear",
        data="voc07",
        data_title="VOC 2007",
        measure="linear mAP",
        needs="voc",
        hours=0.3,
        mini_seconds_per_scene=0.002,
        mini_flags=(*_LINEAR, "--size", "64"),
        systems=(_ONE, _SHARED, _TWO),
    ),
    Table(
        name="S-D",
        protocol="linear",
        data="voc07",
        data_title="VOC 2007",
        measure="linear mAP",
        needs="voc",
        hours=0.3,
        mini_seconds_per_scene=0.002,
        mini_flags=(*_LINEAR, "--size", "64"),
        systems=(
            _counts("k3000_k1500", "K0 3000, K1 1500", 3000, 1500),
            _counts("k300_k1500", "K0 300, K1 1500", 300, 1500),
            _TWO,
            _counts("k300_k150", "K0 300, K1 150", 300, 150),
            _ONE,
        ),
    ),
)


def find_table(name: str) -> Table:
    """Returns the table with a name; raises ValueError if the name is unknown."""
    for table in TABLES:
        if table.name == name:
            return table
    raise ValueError(f"There is no table {name!r}: choose one of {', '.join(t.name for t in TABLES)}")


def training_slug(system: System, scale: str) -> str:
    """Returns the folder name of a pre-training, the same for all rows that are pre-trained alike."""

    def recipe(one: System) -> tuple[Any, ...]:
        return (one.folder, one.full) if scale == "full" else (one.folder, one.mini, dict(one.mini_options))

    rows = (one for table in TABLES for one in table.systems if scale == "full" or one.images == system.images)
    return next(one.slug for one in rows if recipe(one) == recipe(system))
