"""Backbones from their configs, and whether tensors are all of one."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import revert_sync_batchnorm
from mmpretrain.registry import MODELS
from torch import Tensor, nn

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints.config_text import check_types
from sspyr_mm.checkpoints.formats.weights import few

_TRAINING_ONLY = ("init_cfg", "pretrained", "frozen_stages", "norm_eval", "with_cp")


def plain_config(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone's config without what only its training was about.

    Args:
        backbone: As in a training config.

    Returns:
        A copy without initialisation and freezing, with BN in place of SyncBN.
    """
    cfg = {key: value for key, value in backbone.items() if key not in _TRAINING_ONLY}
    if isinstance(cfg.get("type"), str):
        cfg["type"] = cfg["type"].removeprefix("mmpretrain.")
    norm = cfg.get("norm_cfg")
    if isinstance(norm, Mapping) and norm.get("type") in ("SyncBN", "MMSyncBN"):
        cfg["norm_cfg"] = {**norm, "type": "BN"}
    return cfg


def build_network(backbone: Mapping[str, Any]) -> nn.Module:
    """Builds a backbone; nothing is loaded and nothing initialised.

    Args:
        backbone: Config of a backbone of mmpretrain.

    Returns:
        The network in evaluation mode on the CPU, with plain batch norm.

    Raises:
        ValueError: If mmpretrain can't build it.
    """
    check_types(dict(backbone))
    try:
        network = MODELS.build({**backbone, "_scope_": "mmpretrain"})
    except Exception as error:  # whatever the constructor of any backbone makes of wrong arguments
        raise ValueError(
            f"mmpretrain can't build the backbone {dict(backbone)}: {error}"
        ) from error
    network = revert_sync_batchnorm(network)
    network.eval()  # of mmpretrain's backbones it returns nothing
    return network


def complete(state: Mapping[str, Tensor], network: nn.Module, *, what: str) -> dict[str, Tensor]:
    """Checks that tensors are all of a network's and nothing else.

    Args:
        state: Tensors under the network's names. Counters of batch norm may be missing, they become 0.
        network: The network.
        what: The file and what it was taken for, for messages.

    Returns:
        The tensors in the network's order, each contiguous and with memory of its own.

    Raises:
        ValueError: If tensors are missing, unexpected or of another shape.
    """
    wanted = network.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in state and name not in counters]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)}, wanted {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or unexpected or shapes:
        lines = [
            f"{len(names)} tensors {text}: {few(names)}"
            for names, text in (
                (missing, f"of {len(wanted)} missing"),
                (unexpected, "unexpected"),
                (shapes, "of another shape"),
            )
            if names
        ]
        raise ValueError(f"{what} is not a whole backbone: " + "; ".join(lines))
    return {
        name: state[name].clone().contiguous() if name in state else tensor.new_zeros(())
        for name, tensor in wanted.items()
    }
