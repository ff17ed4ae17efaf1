"""Fills a run's config in: the place of its training data, and defaults of its data loaders."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from sspyr_mm.datasets.streaming.shards import is_packed, is_url

__all__ = ["dataloaders", "dicts_of_type", "fill_dataloaders", "plain_name", "set_data_root"]

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")

# What StreamedImages share with files, and what --cfg-options may have said of them already.
_STREAMED = ("pipeline", "shuffle", "cache_dir", "max_cache_size", "storage_options")


def set_data_root(cfg: Config, data_root: str) -> None:
    """Points the training data of a config to another place.

    Args:
        cfg (Config): A config with a ``train_dataloader``. It is changed in place.
        data_root (str): What the dataset takes as ``data_root``: a folder, a list file or an annotation file. For
            packed shards, or a URL, ``StreamedImages`` take the place of ``UnlabelledImages``.

    Raises:
        FileNotFoundError: There is nothing at ``data_root``.
        ValueError: The config has no training dataset, or one of labelled images, which come in two parts.
    """
    if not is_url(data_root) and not Path(data_root).exists():
        raise FileNotFoundError(
            f"--data-root: there is nothing at {data_root!r} (seen from {os.getcwd()}); give a folder of "
            "images, a list file, a COCO json, or what `python -m sspyr_mm pack` made"
        )
    dataset = (cfg.get("train_dataloader") or {}).get("dataset")
    if not isinstance(dataset, dict):
        raise ValueError("--data-root: the config has no train_dataloader.dataset to point elsewhere")
    while isinstance(dataset.get("dataset"), dict):  # RepeatDataset and other wrappers
        dataset = dataset["dataset"]
    if next(dicts_of_type(dataset, lambda name: name == "MultiLabelImages"), None) is not None:
        raise ValueError(
            f"--data-root: {data_root!r} would be the training images alone, and MultiLabelImages have a test part, "
            "too; give both with --cfg-options train_dataloader.dataset.data_root=TRAIN "
            "val_dataloader.dataset.data_root=VAL (of COCO the two jsons of annotations/, of VOC the same tree with "
            "another dataset.split)"
        )
    if is_packed(data_root):
        _stream(cfg, dataset)
    dataset["data_root"] = data_root


def _stream(cfg: Config, dataset: dict) -> None:
    """Replaces files by shards: another data set, which has an order of its own and so no sampler."""
    name = plain_name(str(dataset.get("type")))
    if name not in ("UnlabelledImages", "StreamedImages"):
        raise ValueError(
            f"--data-root: packed shards are images without labels, the config's data set is {name}; give what it reads"
        )
    kept = {key: value for key, value in dataset.items() if key in _STREAMED}
    dataset.clear()
    dataset.update(kept, type="StreamedImages")
    cfg.train_dataloader["sampler"] = None


def fill_dataloaders(cfg: Config) -> None:
    """Gives the data loaders of a config the defaults of mmpretrain's train.py, on which its bases count.

    Configs of mmdet and mmseg are left alone: their images differ in size, and mmengine's own defaults are theirs.

    Args:
        cfg (Config): A config. What it says of ``collate_fn``, ``pin_memory`` and ``persistent_workers``
            stays; it is changed in place.
    """
    if cfg.get("default_scope", "mmpretrain") != "mmpretrain":
        return
    for loader in dataloaders(cfg):
        loader.setdefault("collate_fn", dict(type="default_collate"))
        # Pinning wants a CUDA driver; without one torch warns in every epoch.
        loader.setdefault("pin_memory", torch.cuda.is_available())
        loader.setdefault("persistent_workers", loader.get("num_workers", 0) > 0)
        if loader.get("num_workers", 0) == 0:
            loader["persistent_workers"] = False  # torch refuses both without workers
            loader.pop("prefetch_factor", None)


def dataloaders(cfg: Config) -> Iterator[dict]:
    """The configs of all data loaders."""
    for field in _LOADERS:
        loader = cfg.get(field)
        for one in loader if isinstance(loader, (list, tuple)) else [loader]:
            if isinstance(one, dict):
                yield one


def plain_name(name: str) -> str:
    """A type without its scope."""
    return name.rpartition(".")[2]


def dicts_of_type(node: Any, matches: Callable[[str], bool]) -> Iterator[dict]:
    """Walks a config; yields the dicts whose ``type``, a name with or without scope or a class, matches."""
    if isinstance(node, dict):
        name = node.get("type")
        name = plain_name(name) if isinstance(name, str) else getattr(name, "__name__", None)
        if name is not None and matches(name):
            yield node
        for value in list(node.values()):
            yield from dicts_of_type(value, matches)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from dicts_of_type(value, matches)
