"""Files of features for other programs: of images, and of the cells of a grid in each of them."""

import csv
import importlib.util
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sspyr_mm.features.extraction import FeatureCache, FrozenEncoder, check_read, file_states
from sspyr_mm.files import output_folder, remove_partial, whole_file, write_json

ABOUT = "about.json"
"""File that describes the features of a folder."""
PATHS = "paths.csv"
"""File with the path of every row of the arrays."""
_PARTS = "parts"
_ABOUT = {"checkpoint": str, "encoder": str, "size": int, "grid": int, "num_images": int, "files": str}

Parts = Iterator[NDArray]
"""Features of consecutive images, (rows, 1 + cells, C) float32."""


def write_features(
    encoder: FrozenEncoder,
    paths: Sequence[str],
    out: str | os.PathLike[str],
    *,
    size: int,
    formats: Sequence[str],
    source: Mapping[str, Any],
    devices: Sequence[str] = ("cpu",),
    num_workers: int = 2,
) -> list[Path]:
    """Extracts the features of N images and writes them; continues an interrupted call.

    Memory holds the features of 512 images at a time. ``OUT/parts`` holds those of an unfinished call.

    Args:
        encoder: Backbone, with the grid of cells.
        paths: Image files.
        out: Output folder.
        size: Side of the centre crop in pixels.
        formats: Names among :data:`FORMATS`.
        source: Description of the network, for ``OUT/about.json``: ``checkpoint``, its file, and what else is wanted.
        devices: Devices, one process each.
        num_workers: Processes that decode, per device.

    Returns:
        The files.

    Raises:
        ImportError: If the library of a format is missing.
        ValueError: If the network has no cells, an image cannot be decoded, another process writes to the folder, or it
            holds other features.
    """
    out = Path(out)
    if "parquet" in formats:
        require_pyarrow("--format parquet", "npy or csv")
    rows = 1 + encoder.grid**2
    num_channels = encoder(torch.zeros(1, 3, size, size, dtype=torch.uint8)).shape[1] // rows
    about = {**source, "encoder": encoder.identity, "size": size, "grid": encoder.grid}
    about |= {"num_images": len(paths), "files": file_states(paths).hex()}
    with output_folder(out):
        files = [out / file for name in formats for file in _files(name, encoder.grid)]
        remove_partial(out, *(f"{file.name}.*.partial" for file in (*files, out / ABOUT)))
        if not (_check_folder(out, about, files) and all(file.exists() for file in files)):
            cache = FeatureCache(
                encoder, paths, size=size, cache_dir=out / _PARTS, devices=devices, num_workers=num_workers
            )
            cache.compute([shard for shard in cache.shards if shard.read() is None])

            def parts() -> Parts:
                for shard in cache.shards:
                    features = shard.read()
                    if features is None:
                        check_read([shard])
                    else:
                        yield features.reshape(len(features), rows, num_channels)

            write_json(out / ABOUT, about)
            for name in formats:
                FORMATS[name](out, paths, parts, num_channels, rows - 1)
        _remove_parts(out / _PARTS)
    return files


def _remove_parts(folder: Path) -> None:
    """Removes the parts of finished and of refused calls, and nothing else."""
    for about in folder.glob(f"*/{ABOUT}"):
        if re.fullmatch("[0-9a-f]{32}", about.parent.name):
            shutil.rmtree(about.parent)
    with suppress(OSError):  # missing, or holds files of others
        folder.rmdir()


def require_pyarrow(what: str, instead: str = "") -> None:
    """Raises ImportError if pyarrow is missing; ``what`` needs it."""
    if importlib.util.find_spec("pyarrow") is None:
        otherwise = f", or choose {instead}" if instead else ""
        raise ImportError(f"{what} needs pyarrow: pip install '.[features]'{otherwise}")


def _files(name: str, grid: int) -> list[str]:
    """Returns the names of the files of a format."""
    if name == "npy":
        return ["images.npy", *(["cells.npy"] if grid else []), PATHS]
    return [f"features.{name}"]


def _check_folder(out: Path, about: Mapping[str, Any], files: Sequence[Path]) -> bool:
    """Returns whether a folder is of these features; raises ValueError if it holds others, or files of the same names.

    The checkpoint may have moved.
    """
    if not (out / ABOUT).exists():
        if there := [file.name for file in files if file.exists()]:
            raise ValueError(f"{out} holds {', '.join(there)} of another program: give another folder")
        return False
    earlier = read_about(out)
    if different := [name for name in _ABOUT if name != "checkpoint" and earlier[name] != about[name]]:
        raise ValueError(
            f"{out} holds features of {earlier['num_images']} images by {earlier['checkpoint']}, with another "
            f"{', '.join(different)}: give another folder, or remove it"
        )
    return True


def read_about(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what the features of a folder are; raises ValueError if it holds none."""
    try:
        found = json.loads(Path(out, ABOUT).read_text())
        for name, kind in _ABOUT.items():
            if type(found[name]) is not kind:
                raise TypeError(f"{name} of {ABOUT} is no {kind.__name__}")
        return {name: found[name] for name in _ABOUT}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{out} holds no features of `python -m sspyr_mm embed` ({type(error).__name__}: {error}): give its output "
            "folder"
        ) from error


def _write_paths(out: Path, paths: Sequence[str]) -> None:
    with whole_file(out / PATHS) as partial, _open_csv(partial, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "path"])
        writer.writerows(enumerate(paths))


def read_paths(out: str | os.PathLike[str]) -> list[str]:
    """Reads the path of every row of the arrays; raises ValueError if the file is missing or damaged."""
    try:
        with _open_csv(Path(out, PATHS), "r") as file:
            return [row[1] for row in csv.reader(file)][1:]
    except (OSError, IndexError, csv.Error) as error:
        raise ValueError(f"{Path(out, PATHS)} is missing or damaged ({error}): run the same embed again") from error


def _open_csv(path: Path, mode: str) -> IO[str]:
    return open(path, mode, newline="", encoding="utf-8", errors="surrogateescape")


def _write_npy(out: Path, paths: Sequence[str], parts: Callable[[], Parts], num_channels: int, num_cells: int) -> None:
    """Writes ``images.npy`` (N, C) float32, ``cells.npy`` (N, cells, C) float16, and ``paths.csv``."""
    kinds: list[tuple[str, type, tuple[int, ...]]] = [("images.npy", np.float32, (num_channels,))]
    kinds += [("cells.npy", np.float16, (num_cells, num_channels))] if num_cells else []
    for name, dtype, shape in kinds:
        with whole_file(out / name) as partial, open(partial, "wb") as file:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (len(paths), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts():
                chosen = part[:, 0] if name == "images.npy" else part[:, 1:]
                file.write(np.ascontiguousarray(chosen, dtype).tobytes())
    _write_paths(out, paths)


def _write_csv(out: Path, paths: Sequence[str], parts: Callable[[], Parts], num_channels: int, num_cells: int) -> None:
    """Writes ``features.csv``: path, cell (empty for the image), and a column per channel."""
    with whole_file(out / "features.csv") as partial, _open_csv(partial, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "cell", *(f"f{i}" for i in range(num_channels))])
        rest = iter(paths)
        for part in parts():
            for path, rows in zip(itertools.islice(rest, len(part)), part, strict=True):
                for number, row in enumerate(rows):
                    writer.writerow([path, "" if number == 0 else number - 1, *(f"{x:.6g}" for x in row)])


def _write_parquet(
    out: Path, paths: Sequence[str], parts: Callable[[], Parts], num_channels: int, num_cells: int
) -> None:
    """Writes ``features.parquet``: path, image (C float32), and cells (cells x C float32), in row groups."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = {"image": num_channels, **({"cells": num_cells * num_channels} if num_cells else {})}
    schema = pa.schema([("path", pa.string()), *((name, pa.list_(pa.float32(), n)) for name, n in columns.items())])
    rest = iter(paths)
    with (
        whole_file(out / "features.parquet") as partial,
        parquet.ParquetWriter(partial, schema, compression="zstd") as writer,
    ):
        for part in parts():
            names = [os.fsencode(path).decode(errors="replace") for path in itertools.islice(rest, len(part))]
            arrays = [pa.array(names)]
            for name, length in columns.items():
                chosen = part[:, 0] if name == "image" else part[:, 1:]
                flat = pa.array(np.ascontiguousarray(chosen).reshape(-1))
                arrays.append(pa.FixedSizeListArray.from_arrays(flat, length))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


FORMATS: dict[str, Callable[..., None]] = {"npy": _write_npy, "parquet": _write_parquet, "csv": _write_csv}
"""Writers by name of the format."""
