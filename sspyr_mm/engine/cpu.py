"""Runs any mmengine config on a machine without a GPU: gloo, bfloat16 autocast, batch norm per process."""

import atexit
import datetime
import gc
import logging
import os
import subprocess
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from sspyr_mm.engine.config import dataloaders, dicts_of_type, plain_name
from sspyr_mm.engine.optim_wrapper import AutocastOptimWrapper

__all__ = ["CPUDistributedDataParallel", "init_gloo", "prepare_config"]

# Environment variables of each launcher: (rank, world size, local rank).
_PLACE = {
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` for a model on the CPU.

    SyncBN needs a GPU: its layers become batch norm layers with the same parameters and buffers, whose statistics
    are those of each rank's own batch (mmengine does the same in a run that is not distributed). Construction is
    collective, as for every DistributedDataParallel.

    Args:
        module: Model, on the CPU.
        device_ids: Ignored: mmengine's runner passes the local rank, which DistributedDataParallel rejects for a
            module on the CPU.
        **kwargs: Arguments of ``MMDistributedDataParallel``.
    """

    def __init__(self, module: nn.Module, device_ids: Any = None, **kwargs: Any) -> None:
        super().__init__(module=revert_sync_batchnorm(module), device_ids=None, **kwargs)


def prepare_config(cfg: Config, launcher: str = "none") -> Config:
    """Adapts a config to the machine; with an accelerator only `_scope_` changes.

    On a machine without one:

    - the process group is created with gloo, before mmengine's runner would select CUDA devices. Collective: every
      rank calls this;
    - ``CPUDistributedDataParallel`` wraps the model, and ``MMSyncBN`` (a compiled op) and `sync_bn` are removed;
    - ``AmpOptimWrapper`` becomes ``AutocastOptimWrapper`` in bfloat16.

    Args:
        cfg: Complete training or test config, changed in place and returned.
        launcher: Launcher of the processes: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        ValueError: If the launcher is unknown.
        RuntimeError: If a variable that the launcher sets is missing from the environment.
    """
    if launcher != "none" and launcher not in _PLACE:
        raise ValueError(f"launcher must be one of none, {', '.join(_PLACE)}; got {launcher!r}")
    for loader in dataloaders(cfg):
        if isinstance(collate := loader.get("collate_fn"), dict):
            collate.pop("_scope_", None)  # an inherited one would reach the collate function as an argument
    if _has_accelerator():
        return cfg
    notices = _use_autocast(cfg)
    if launcher != "none":
        cfg.merge_from_dict({"env_cfg.dist_cfg.backend": "gloo"})
        init_gloo(launcher, timeout=cfg.env_cfg.dist_cfg.get("timeout"))
        notices += _use_cpu_wrapper(cfg) + _replace_sync_bn(cfg)
    if not torch_dist.is_initialized() or torch_dist.get_rank() == 0:
        for notice in notices:
            print_log(f"No GPU: {notice}", logger="current", level=logging.WARNING)
    return cfg


def init_gloo(launcher: str, *, timeout: float | None = None) -> None:
    """Creates the default process group with gloo, unless one exists. Collective; ``timeout`` is in seconds."""
    if torch_dist.is_initialized():
        return
    rank, world_size, local_rank = (_read_variable(name, launcher) for name in _PLACE[launcher])
    if launcher == "slurm":
        if "MASTER_ADDR" not in os.environ:
            os.environ["MASTER_ADDR"] = _first_slurm_host()
        os.environ.setdefault("MASTER_PORT", "29500")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        _read_variable(name, launcher)
    # mmengine's runner reads LOCAL_RANK with every launcher.
    os.environ.update(RANK=rank, WORLD_SIZE=world_size, LOCAL_RANK=local_rank)
    limit = None if timeout is None else datetime.timedelta(seconds=timeout)
    torch_dist.init_process_group("gloo", timeout=limit)
    atexit.register(_leave_group)


def _leave_group() -> None:
    """Ends gloo's threads: a thread that takes the interpreter's lock during finalisation aborts the process."""
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()
        gc.collect()  # a wrapped model in a reference cycle keeps the group alive


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or get_device() != "cpu"


def _read_variable(name: str, launcher: str) -> str:
    if name not in os.environ:
        raise RuntimeError(
            f"launcher={launcher!r}: the environment variable {name} is not set; start the processes with "
            "tools/dist_train.sh (torchrun), tools/slurm_train.sh (srun) or mpirun, or omit --launcher for "
            "one process"
        )
    return os.environ[name]


def _first_slurm_host() -> str:
    command = ["scontrol", "show", "hostnames", _read_variable("SLURM_NODELIST", "slurm")]
    try:
        result = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"`{' '.join(command)}` failed ({error}); set MASTER_ADDR to the name of the first node"
        ) from error
    return result.stdout.split()[0]


def _use_autocast(cfg: Config) -> list[str]:
    notices: set[str] = set()
    for wrapper in dicts_of_type(cfg.get("optim_wrapper"), "AmpOptimWrapper"):
        change = "" if wrapper.get("dtype") in ("bfloat16", torch.bfloat16) else " instead of float16"
        notices.add(f"AmpOptimWrapper runs as AutocastOptimWrapper, bfloat16{change}")
        for option in ("loss_scale", "use_fsdp"):
            wrapper.pop(option, None)
        # With its scope, since the default scope of the config may be mmdet or mmseg.
        wrapper.update(type=f"mmpretrain.{AutocastOptimWrapper.__name__}", dtype="bfloat16")
    return sorted(notices)


def _use_cpu_wrapper(cfg: Config) -> list[str]:
    if cfg.get("model_wrapper_cfg") is None:  # the default of mmengine's runner
        unused = cfg.get("find_unused_parameters", False)
        cfg.model_wrapper_cfg = dict(broadcast_buffers=False, find_unused_parameters=unused)
    default = (None, "MMDistributedDataParallel", MMDistributedDataParallel)
    name = cfg.model_wrapper_cfg.get("type")
    if (plain_name(name) if isinstance(name, str) else name) in default:
        cfg.model_wrapper_cfg.type = f"mmengine.{CPUDistributedDataParallel.__name__}"
        return []
    cfg.model_wrapper_cfg.device_ids = None
    return [f"model_wrapper_cfg.type={name} is kept, with device_ids=None"]


def _replace_sync_bn(cfg: Config) -> list[str]:
    """Keeps 'SyncBN', whose layers CPUDistributedDataParallel replaces; 'MMSyncBN' cannot be built."""
    found = cfg.pop("sync_bn", None) is not None
    for norm in dicts_of_type(cfg.get("model"), "MMSyncBN", "SyncBN", "SyncBatchNorm"):
        found = True
        if plain_name(norm["type"]) == "MMSyncBN":
            norm["type"] = "SyncBN"
    return ["SyncBN layers run as BN, with the statistics of each process's own batch"] * found
