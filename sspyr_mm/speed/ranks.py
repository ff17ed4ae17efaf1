"""Counting what processes exchange, with two of them on this machine."""

import copy
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from mmengine.config import Config
from mmpretrain.registry import MODELS

from sspyr_mm.pyramid import PyramidSpec
from sspyr_mm.speed.counters import Counts, OperatorCounter

_RANKS = 2
_SECONDS = 120


def count_collectives(cfg: Config) -> Counts:
    """Collectives of codes and queues in one step, counted in two processes that have gloo between them.

    Args:
        cfg: A pre-training config; its head is built, on random embeddings of one image.

    Returns:
        Counts of the first process. Gradients, which DistributedDataParallel adds up itself, are not among them.
    """
    head = {**copy.deepcopy(cfg.model.head), "embed_dims": cfg.model.neck.out_channels}
    with tempfile.TemporaryDirectory() as folder:
        arguments = (head, cfg.model.pyramid.to_dict(), folder)
        multiprocessing.spawn(_count, arguments, nprocs=_RANKS)
        return torch.load(Path(folder, "counts"), weights_only=False)


def _count(rank: int, head_config: dict, pyramid: dict, folder: str) -> None:
    import datetime

    import sspyr_mm.registration  # noqa: F401

    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", _RANKS)
    limit = datetime.timedelta(seconds=_SECONDS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=_RANKS, timeout=limit)
    spec = PyramidSpec.from_config(pyramid)
    head = MODELS.build({**head_config, "pyramid": spec})
    embeddings = {
        g.name: torch.nn.functional.normalize(
            torch.randn(g.num_views, 1, g.num_patches, head_config["embed_dims"]), dim=-1
        )
        for g in spec.groups
    }
    with OperatorCounter() as counter:
        head.loss(embeddings)
    if rank == 0:
        torch.save(counter.counts, f"{folder}/counts")
    dist.destroy_process_group()
