"""Networks to evaluate: checkpoints of any known format, and their architecture with random weights."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.runner import set_random_seed

from sspyr_mm.benchmarks.results.result import fingerprint
from sspyr_mm.checkpoints import BackboneCheckpoint, Selection, build_backbone, read_backbone
from sspyr_mm.checkpoints.formats.backbones import build_network, code_digests, custom_modules
from sspyr_mm.checkpoints.pretraining import quiet_initialisation
from sspyr_mm.features.extraction import FrozenEncoder
from sspyr_mm.files import short_names
from sspyr_mm.tensor_files import safe_loading


@dataclass(frozen=True)
class Network:
    """A network to evaluate."""

    name: str  # as in tables
    checkpoint: BackboneCheckpoint
    path: str | None  # None for random weights
    custom_imports: tuple[str, ...] = ()  # modules that were imported to build it

    @property
    def modules(self) -> list[str]:
        """Modules of the user that register the network."""
        return sorted({*self.custom_imports, *custom_modules(self.checkpoint.backbone)})

    @property
    def about(self) -> dict[str, Any]:
        """Description for its results."""
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
        """Fingerprint of everything a result depends on: weights, architecture, and image decoding."""
        found = self.checkpoint
        file = found.sha256, found.key, found.prefix
        code = code_digests(self.modules)
        return fingerprint(*file, found.mean, found.std, found.decoding, found.backbone, code)

    @cached_property
    def num_channels(self) -> int:
        """Channels of the pooled features."""
        image = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
        return self.encoder()(image).shape[1]

    def encoder(self) -> FrozenEncoder:
        """Builds the network as a frozen function from images to features."""
        found = self.checkpoint
        return FrozenEncoder(
            build_backbone(found), found.mean, found.std, identity=self.identity, decoding=found.decoding
        )


def read_networks(
    paths: Sequence[str],
    *,
    random: bool = False,
    allow_pickle: bool = False,
    select: Selection | None = None,
    custom_imports: Sequence[str] = (),
) -> list[Network]:
    """Reads all checkpoints, see :func:`read_backbone`, so that a wrong one is reported before hours of work.

    ``random`` appends the architecture of the first one with random weights; ``custom_imports`` are the modules that
    were imported to build them.
    """
    networks = []
    for name, path in zip(short_names(paths), paths, strict=True):
        checkpoint = read_backbone(path, allow_pickle=allow_pickle, select=select)
        networks.append(Network(name, checkpoint, path, tuple(custom_imports)))
    if random:
        networks.append(replace(random_network(networks[0].checkpoint), custom_imports=tuple(custom_imports)))
    return networks


def random_network(like: BackboneCheckpoint) -> Network:
    """Returns the architecture of a checkpoint with random weights of seed 0."""
    set_random_seed(0)
    network = build_network(like.backbone)
    if isinstance(network, BaseModule):  # others are initialised by their constructor
        with quiet_initialisation(), safe_loading():
            network.init_weights()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    digest = hashlib.sha256(fingerprint(like.backbone).encode())
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    checkpoint = replace(
        like, source="random", state_dict=state, sha256=digest.hexdigest(), key=None, prefix="", notes=()
    )
    return Network("random", checkpoint, None)
