"""Completes the config of a run: the path of its training data, and the defaults of its data loaders."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config

from sspyr_mm.datasets.streaming.shards import is_packed, is_url

__all__ = ["LOADERS", "dataloaders", "dicts_of_type", "fill_dataloaders", "plain_name", "set_data_root"]

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")

# Settings that StreamedImages share with files, and those that --cfg-options may already have set.
_STREAMED = ("pipeline", "shuffle", "cache_dir", "max_cache_size", "storage_options")


def set_data_root(cfg: Config, data_root: str) -> None:
    """Sets the path of the training data in a config: a folder, a list file, an annotation file, shards or a URL.

    For packed shards, also behind a URL, ``StreamedImages`` replaces ``UnlabelledImages``.

    Raises:
        FileNotFoundError: If ``data_root`` does not exist.
        ValueError: If the config has no training set, or labelled images, which also need a validation set.
    """
    if not is_url(data_root) and not os.path.exists(data_root):  # not Path.exists, which raises PermissionError
        raise FileNotFoundError(
            f"--data-root: {data_root!r} does not exist, or this user may not read its folder (in {os.getcwd()}); "
            "give a folder of images, a list file, a COCO json, or the output of `python -m sspyr_mm pack`"
        )
    dataset = (cfg.get("train_dataloader") or {}).get("dataset")
    if not isinstance(dataset, dict):
        raise ValueError("--data-root: the config has no train_dataloader.dataset whose path could be set")
    while isinstance(dataset.get("dataset"), dict):  # RepeatDataset and other wrappers
        dataset = dataset["dataset"]
    if any(dicts_of_type(dataset, "MultiLabelImages")):
        raise ValueError(
            f"--data-root: {data_root!r} sets only the training images, but MultiLabelImages also needs a validation "
            "set. Set both: --cfg-options train_dataloader.dataset.data_root=TRAIN "
            "val_dataloader.dataset.data_root=VAL (of COCO the two jsons of annotations/, of VOC the same tree with "
            "another dataset.split)"
        )
    if is_packed(data_root):
        name = plain_name(str(dataset.get("type")))
        if name not in ("UnlabelledImages", "StreamedImages"):
            raise ValueError(
                f"--data-root: packed shards hold images without labels, but the config uses {name}; give its format"
            )
        kept = {key: value for key, value in dataset.items() if key in _STREAMED}
        dataset.clear()
        dataset.update(kept, type="StreamedImages")
        cfg.train_dataloader["sampler"] = None  # the data set orders its images itself
    dataset["data_root"] = data_root


def fill_dataloaders(cfg: Config) -> None:
    """Sets the defaults of mmpretrain's train.py, which its base configs rely on, in the data loaders of a config.

    Changes the config in place; its own values of ``collate_fn`` and ``persistent_workers``, and of ``pin_memory`` on a
    machine with CUDA, take precedence. Configs of mmdet and mmseg are unchanged: their images differ in size, and they
    rely on mmengine's defaults.
    """
    if cfg.get("default_scope", "mmpretrain") != "mmpretrain":
        return
    for loader in dataloaders(cfg):
        loader.setdefault("collate_fn", dict(type="default_collate"))
        # Pinning needs a CUDA driver; without one torch warns in every epoch.
        loader["pin_memory"] = loader.get("pin_memory", True) and torch.cuda.is_available()
        loader.setdefault("persistent_workers", loader.get("num_workers", 0) > 0)
        if loader.get("num_workers", 0) == 0:
            loader["persistent_workers"] = False  # torch rejects True without workers
            loader.pop("prefetch_factor", None)


def dataloaders(cfg: Config) -> Iterator[dict]:
    """Yields the configs of all data loaders."""
    for field in LOADERS:
        loader = cfg.get(field)
        for one in loader if isinstance(loader, (list, tuple)) else [loader]:
            if isinstance(one, dict):
                yield one


def plain_name(name: str) -> str:
    """Returns the name of a type without its scope."""
    return name.rpartition(".")[2]


def dicts_of_type(node: Any, *names: str) -> Iterator[dict]:
    """Yields the dicts in a config whose ``type``, a class or a name with or without scope, has one of the names."""
    if isinstance(node, dict):
        kind = node.get("type")
        if (plain_name(kind) if isinstance(kind, str) else getattr(kind, "__name__", None)) in names:
            yield node
        for value in list(node.values()):
            yield from dicts_of_type(value, *names)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from dicts_of_type(value, *names)
