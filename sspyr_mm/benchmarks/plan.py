"""Plan of a reproduction: its settings, and whether they fit the table, the data and earlier results."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sspyr_mm.benchmarks.systems import System, Table
from sspyr_mm.files import configs_dir, write_json
from sspyr_mm.machine import list_devices, num_cores

IMAGES_OPTION = {"coco": "images", "imagenet": "imagenet"}
"""Option of the folder of each set of training images."""
_MINI_EPOCHS = 40


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a reproduction."""

    table: Table
    scale: str  # full or mini
    seeds: tuple[int, ...]  # to run
    work_dir: Path
    methods: tuple[str, ...] = ()  # names of systems; empty: all
    data: dict[str, str | None]  # folders by option: images, imagenet, coco, voc, voc_masks
    gpus: int = 1  # processes of a pre-training
    jobs: int = 1  # rows that run at the same time
    epochs: int | None = None  # of pre-training; None: those of the config
    num_images: int = 4000  # scenes of the mini size

    @property
    def rows(self) -> tuple[System, ...]:
        """Rows of the table; at mini size there is one set of training images."""
        return tuple(s for s in self.table.systems if self.scale == "full" or s.images == "coco")

    @property
    def systems(self) -> tuple[System, ...]:
        """Chosen rows, in the order of the table."""
        names = {name.lower() for name in self.methods}
        return tuple(s for s in self.rows if not names or names & {s.name.lower(), s.slug})

    @property
    def trained(self) -> list[System]:
        """Systems that are pre-trained."""
        return [system for system in self.systems if system.folder]

    @property
    def mini_epochs(self) -> int:
        """Epochs of pre-training at mini size."""
        return self.epochs or _MINI_EPOCHS

    @property
    def record(self) -> dict[str, Any]:
        """Settings on which all results in the work dir depend."""
        if self.scale == "mini":
            return {"epochs": self.mini_epochs, "num_images": self.num_images}
        return {"epochs": self.epochs, **{k: v and str(Path(v).resolve()) for k, v in self.data.items()}}

    @property
    def scenes(self) -> Path:
        """Folder of the generated scenes of the mini size."""
        return self.work_dir / f"scenes_{self.num_images}"

    def config(self, system: System) -> Path:
        """Returns the config of a system's pre-training."""
        return configs_dir() / str(system.folder) / f"{system.full if self.scale == 'full' else system.mini}.py"


@cache
def load_config(path: Path) -> Config:
    """Reads a config once."""
    return Config.fromfile(path)


def num_epochs(count: int) -> str:
    """Formats a number of epochs."""
    return f"{count} epoch{'s' * (count != 1)}"


def check_plan(plan: Plan) -> None:
    """Raises ValueError for unknown methods, missing data, or a work dir with results of other settings."""
    _check_methods(plan)
    _check_jobs(plan)
    if plan.scale == "full":
        _check_folders(plan)
    else:
        if plan.gpus > 1:
            raise ValueError(f"--gpus {plan.gpus} is for --scale full: at mini size it would change the batch size")
        batch = max(load_config(plan.config(system)).train_dataloader.batch_size for system in plan.trained)
        if plan.num_images < batch:
            raise ValueError(
                f"--num-images {plan.num_images} is less than a batch of {batch} images: give at least {batch}"
            )
    record = plan.record
    earlier = read_record(plan, default=record)
    # Data of other tables may be added later.
    added = {name for name in plan.data if None in (earlier.get(name), record.get(name))}
    if other := [name for name, value in record.items() if name not in added and earlier.get(name) != value]:
        held, wanted = _describe(earlier, other), _describe(record, other)
        raise ValueError(
            f"{_record_path(plan).parent} holds results of {held}, not {wanted}: give the same, or another --work-dir"
        )


def _check_methods(plan: Plan) -> None:
    slugs = {system.slug: system for system in plan.rows}
    known = {name for s in plan.rows for name in (s.name.lower(), s.slug)}
    if unknown := [name for name in plan.methods if name.lower() not in known]:
        near = get_close_matches("-".join(unknown[0].lower().split()), slugs, n=1, cutoff=0.5)
        meant = f"; do you mean {near[0]}? Choose" if near else ": choose"
        rows = ", ".join(slug + " (a reconstruction)" * bool(one.note) for slug, one in slugs.items())
        raise ValueError(f"Table {plan.table.name} at {plan.scale} size has no {', '.join(unknown)}{meant} from {rows}")
    if not plan.trained:
        other = next(slug for slug, system in slugs.items() if system.folder)
        raise ValueError(
            "Random init is measured with the network of another row. Choose one as well, for example --methods "
            f"random-init {other}"
        )


def _check_jobs(plan: Plan) -> None:
    """Raises ValueError for more jobs than this machine has room for; several jobs at mini size may share a GPU."""
    if plan.jobs == 1:
        return
    if plan.jobs > (cores := num_cores()):
        raise ValueError(f"--jobs {plan.jobs} is more than the cores of this machine: give at most {cores}")
    wanted, found = plan.jobs * plan.gpus, sum(name != "cpu" for name in list_devices())
    if plan.scale == "full" and wanted > found:
        raise ValueError(
            f"--jobs {plan.jobs} needs {wanted} GPUs ({plan.gpus} per job), and this machine has {found}: give fewer "
            "--jobs or --gpus"
        )


def _check_folders(plan: Plan) -> None:
    options = sorted({IMAGES_OPTION[system.images] for system in plan.trained} | {plan.table.needs})
    if missing := [f"{_flag(name)} DIR" for name in options if not plan.data.get(name)]:
        raise ValueError(f"Table {plan.table.name} at full size needs {' '.join(missing)}")
    folders = {_flag(name): str(plan.data[name]) for name in options}
    if absent := [f"{flag} {folder}" for flag, folder in folders.items() if not Path(folder).is_dir()]:
        is_no = "is not a folder" if len(absent) == 1 else "are not folders"
        raise ValueError(f"{' and '.join(absent)} {is_no}: give the folder of each data set")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _describe(record: Mapping[str, Any], names: list[str]) -> str:
    """Formats settings as a user gives them."""
    if "num_images" in record:
        return f"{num_epochs(record['epochs'])} of {record['num_images']} scenes"
    return ", ".join(f"{_flag(name)} {record[name]}" if record.get(name) else f"no {_flag(name)}" for name in names)


def _record_path(plan: Plan) -> Path:
    return plan.work_dir / plan.scale / "settings.json"


def read_record(plan: Plan, *, default: dict[str, Any]) -> dict[str, Any]:
    """Reads the settings of the results in the work dir; raises ValueError if the file does not hold any."""
    path = _record_path(plan)
    try:
        return dict(json.loads(path.read_text())) if path.exists() else default
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the settings of the results in its folder ({error}): restore it, or give another "
            "--work-dir"
        ) from error


def write_record(plan: Plan) -> None:
    """Writes the settings of a plan next to its results, with those of earlier plans."""
    earlier = read_record(plan, default={})
    write_json(_record_path(plan), {**earlier, **{k: v for k, v in plan.record.items() if v or k not in earlier}})
