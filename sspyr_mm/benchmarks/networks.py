"""What is measured: checkpoints of any known format, and their architecture with random weights."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.runner import set_random_seed

from sspyr_mm.benchmarks.classification.features import FrozenEncoder
from sspyr_mm.benchmarks.results.result import fingerprint
from sspyr_mm.checkpoints import BackboneCheckpoint, Selection, build_backbone, read_backbone
from sspyr_mm.checkpoints.formats.backbones import build_network, code_digests, custom_modules
from sspyr_mm.checkpoints.pretraining import quiet_initialisation

__all__ = ["Network", "random_network", "read_networks"]


@dataclass(frozen=True)
class Network:
    """What is measured.

    Args:
        name: As tables call it.
        checkpoint: Its weights.
        path: Where they are from; None for random ones.
        custom_imports: Modules that were imported for it.
    """

    name: str
    checkpoint: BackboneCheckpoint
    path: str | None
    custom_imports: tuple[str, ...] = ()

    @property
    def modules(self) -> list[str]:
        """Modules that are no part of the stack, without which the network can't be built."""
        return sorted({*self.custom_imports, *custom_modules(self.checkpoint.backbone)})

    @property
    def about(self) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "sha256": self.checkpoint.sha256,
            "identity": self.identity,
            "format": self.checkpoint.source,
            "path": self.path,
            "place": self.checkpoint.place,
            **({"decoding": self.checkpoint.decoding} if self.checkpoint.decoding else {}),
            **({"code": code_digests(self.modules)} if self.modules else {}),
        }

    @property
    def identity(self) -> str:
        """Fingerprint of all that a result depends on: weights, architecture, and how images become inputs."""
        checkpoint = self.checkpoint
        return fingerprint(
            checkpoint.sha256,
            checkpoint.key,
            checkpoint.prefix,
            checkpoint.mean,
            checkpoint.std,
            checkpoint.decoding,
            checkpoint.backbone,
            code_digests(self.modules),
        )

    @cached_property
    def num_channels(self) -> int:
        """Channels of the pooled features."""
        image = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
        return self.encoder()(image).shape[1]

    def encoder(self) -> FrozenEncoder:
        """The network as a fixed function from images to features."""
        checkpoint = self.checkpoint
        return FrozenEncoder(
            build_backbone(checkpoint),
            checkpoint.mean,
            checkpoint.std,
            identity=self.identity,
            decoding=checkpoint.decoding,
        )


def read_networks(
    paths: Sequence[str],
    *,
    random: bool = False,
    allow_pickle: bool = False,
    select: Selection | None = None,
    custom_imports: Sequence[str] = (),
) -> list[Network]:
    """Reads all checkpoints, so that a wrong one is reported before the first hour's work.

    Args:
        paths: Files of any known format.
        random: Whether to add the first one's architecture with random weights (of seed 0).
        allow_pickle: See :func:`read_backbone`.
        select: See :func:`read_backbone`; the same for all files.
        custom_imports: Modules that were imported to build them.

    Returns:
        Networks in the order given.

    Raises:
        ValueError: If one can't be read.
    """
    names = _short_names(paths)
    networks = []
    for name, path in zip(names, paths, strict=True):
        checkpoint = read_backbone(path, allow_pickle=allow_pickle, select=select)
        networks.append(Network(name, checkpoint, path, tuple(custom_imports)))
    if random:
        untrained = random_network(networks[0].checkpoint)
        networks.append(replace(untrained, custom_imports=tuple(custom_imports)))
    return networks


def random_network(like: BackboneCheckpoint) -> Network:
    """The architecture of a checkpoint as it is before any training.

    Args:
        like: The checkpoint.
    """
    set_random_seed(0)
    network = build_network(like.backbone)
    if isinstance(network, BaseModule):  # others are as their constructor leaves them
        with quiet_initialisation():
            network.init_weights()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    digest = hashlib.sha256(fingerprint(like.backbone).encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    checkpoint = replace(
        like, source="random", state_dict=state, sha256=digest.hexdigest(), key=None, prefix="", notes=()
    )
    return Network("random", checkpoint, None)


def _short_names(paths: Sequence[str]) -> list[str]:
    """File names, with as many folders before them as it takes to tell them apart."""
    parts = [os.path.abspath(path).split(os.sep) for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(map(tuple, parts))):
            return names
    return list(paths)
