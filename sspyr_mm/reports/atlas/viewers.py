"""Maps of an atlas in other programs: Embedding Atlas, FiftyOne, and the projector of TensorBoard."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sspyr_mm.files import whole_file
from sspyr_mm.reports.atlas.atlas_map import ScaleMap
from sspyr_mm.reports.atlas.scale_atlas import ScaleAtlas

_GAP = 2.5
"""Distance between the centres of two maps, each of which is 2 wide."""
_SPRITE = 32
"""Side of a thumbnail in TensorBoard, in pixels."""
_PROJECTOR = "projector_config.pbtxt"

Writer = Callable[[str | os.PathLike[str], Sequence[ScaleAtlas], Mapping[str, ScaleMap]], list[str]]


@dataclass(frozen=True)
class Viewer:
    """Program that shows the maps of an atlas.

    ``write`` writes its files to the folder of an atlas, next to ``atlas.parquet``, and returns the command.
    """

    write: Writer
    is_installed: Callable[[], bool]
    install: str

    def check(self) -> None:
        """Raises ImportError if the program is missing."""
        if not self.is_installed():
            name = next(name for name, viewer in VIEWERS.items() if viewer is self)
            raise ImportError(f"--open {name} needs the program: {self.install}")


def _write_embedding_atlas(
    out: str | os.PathLike[str], atlas: Sequence[ScaleAtlas], maps: Mapping[str, ScaleMap]
) -> list[str]:
    """Writes a table of the cells on the maps, which are placed next to each other."""
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(Path(out, "atlas.parquet"))
    rows = np.flatnonzero(table["x"].is_valid())
    cells = table.take(pa.array(rows))
    # `neighbours` are rows of the whole table. Embedding Atlas expects equally many of every cell.
    lists = cells["neighbours"].to_pylist()
    count = min(map(len, lists))
    near = [np.searchsorted(rows, row[:count]) for row in lists]
    shown = [part for part in atlas if part.scale in maps]
    vectors = [vector for part in shown for vector in part.embedding]
    offsets = np.repeat(np.arange(len(shown)) * _GAP, [len(part.mapped) for part in shown])
    columns = {
        **{name: cells[name] for name in ("image", "scale", "cell", "score", "margin", "y")},
        "x": cells["x"].to_numpy() + offsets,
        "prototype": [f"{row['scale']} {row['prototype']}" for row in cells.select(["scale", "prototype"]).to_pylist()],
        "thumbnail": [{"bytes": value} for value in cells["thumbnail"].to_pylist()],
        "neighbours": [
            {"ids": ids.tolist(), "distances": [float(1 - vector @ vectors[i]) for i in ids]}
            for ids, vector in zip(near, vectors, strict=True)
        ],
    }
    path = Path(out, "embedding_atlas.parquet")
    with whole_file(path) as partial:
        parquet.write_table(pa.table(columns), partial)
    given = {"x": "x", "y": "y", "image": "thumbnail", "neighbors": "neighbours"}
    return ["embedding-atlas", str(path), *(word for name, column in given.items() for word in (f"--{name}", column))]


def _write_fiftyone(
    out: str | os.PathLike[str], atlas: Sequence[ScaleAtlas], maps: Mapping[str, ScaleMap]
) -> list[str]:
    """Writes the cells of the maps by image, for ``fiftyone_app.py``."""
    from pyarrow import parquet

    corners = ("left", "top", "right", "bottom")
    table = parquet.read_table(
        Path(out, "atlas.parquet"), columns=["image", "scale", *corners, "prototype", "score", "x", "y"]
    )
    images: dict[str, dict[str, list[dict[str, object]]]] = {}
    for row in table.filter(table["x"].is_valid()).to_pylist():
        image = os.path.abspath(row["image"])
        if image not in images and not os.path.isfile(image):
            raise ValueError(f"--open fiftyone needs image files, and {image} is not a file")
        cell = {
            "box": [row[name] for name in corners],
            "prototype": row["prototype"],
            "score": row["score"],
            "place": [row["x"], row["y"]],
        }
        images.setdefault(image, {}).setdefault(row["scale"], []).append(cell)
    path = Path(out, "fiftyone.json")
    with whole_file(path) as partial:
        Path(partial).write_text(json.dumps({"name": f"atlas {path.parent.resolve()}", "images": images}))
    return [str(_python_of_fiftyone()), str(Path(__file__).with_name("fiftyone_app.py")), str(path)]


def _python_of_fiftyone() -> Path | None:
    """Returns the Python of the environment that has FiftyOne: this one, or that of the program on PATH."""
    if importlib.util.find_spec("fiftyone") is not None:
        return Path(sys.executable)
    program = shutil.which("fiftyone")
    python = Path(program).resolve().with_name("python") if program else None
    return python if python and python.exists() else None


def _write_tensorboard(
    out: str | os.PathLike[str], atlas: Sequence[ScaleAtlas], maps: Mapping[str, ScaleMap]
) -> list[str]:
    """Writes the embeddings of the cells on the maps, with thumbnails, for the projector."""
    from pyarrow import parquet
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(out, "tensorboard")
    if folder.exists():
        if not (folder / _PROJECTOR).is_file():
            raise ValueError(f"{folder} exists and is not of an atlas: give another folder")
        shutil.rmtree(folder)
    table = parquet.read_table(Path(out, "atlas.parquet"), columns=["image", "scale", "prototype", "thumbnail"])
    table = table.filter(table["thumbnail"].is_valid())
    with SummaryWriter(folder) as writer:
        for part in (part for part in atlas if part.scale in maps):
            cells = [row for row in table.to_pylist() if row["scale"] == part.scale]
            writer.add_embedding(
                torch.from_numpy(part.embedding),
                metadata=[[row["prototype"], row["image"]] for row in cells],
                metadata_header=["prototype", "image"],
                label_img=torch.stack([_sprite(row["thumbnail"]) for row in cells]),
                tag=part.scale,
            )
    return [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]


def _sprite(content: bytes) -> torch.Tensor:
    """Returns (3, S, S) in 0 to 1."""
    image = Image.open(io.BytesIO(content)).resize((_SPRITE, _SPRITE))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


VIEWERS = {
    "embedding-atlas": Viewer(
        _write_embedding_atlas,
        lambda: shutil.which("embedding-atlas") is not None,
        "pipx install embedding-atlas (in an environment of its own)",
    ),
    "fiftyone": Viewer(
        _write_fiftyone,
        lambda: _python_of_fiftyone() is not None,
        "pipx install fiftyone (in an environment of its own)",
    ),
    "tensorboard": Viewer(
        _write_tensorboard,
        lambda: importlib.util.find_spec("tensorboard") is not None,
        "pip install tensorboard",
    ),
}


def show(command: Sequence[str]) -> int:
    """Runs a viewer until it ends or Ctrl-C, which it receives as well; returns its exit status."""
    print(" ".join(command), flush=True)
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0
