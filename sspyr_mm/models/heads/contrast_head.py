"""Head of momentum contrast: queries against their keys and queues of earlier keys."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from sspyr_mm.health import record
from sspyr_mm.models.assigners import FeatureQueue
from sspyr_mm.models.layers import precise
from sspyr_mm.models.losses import info_nce
from sspyr_mm.models.state_check import check_head_state
from sspyr_mm.views.checks import check_count, is_number


class Term(NamedTuple):
    """One term of the loss: names of its queries, keys and queue, and its weight."""

    query: str
    key: str
    queue: str
    weight: float = 1.0


@MODELS.register_module()
class ContrastHead(BaseModule):
    """Owns the queues of keys and computes the weighted sum of contrast terms.

    State: queues are buffers, equal on all ranks, in the checkpoint. They start with random unit vectors.

    Args:
        embed_dims: D, size of an embedding.
        queue_length: L, keys per queue over all ranks.
        temperature: T, > 0.
        terms: Per term's name, a dict with the names of its ``query``, ``key`` and ``queue`` and its ``weight``. A name
            that is left out is the term's own; a queue holds the keys of its name.
        init_cfg: Config of the initialisation.

    Raises:
        ValueError: If the temperature is not positive, a weight is negative, or a term has an unknown field.

    Source: MoCo, algorithm 1; temperature of MoCo v2.
    """

    def __init__(
        self,
        embed_dims: int = 128,
        *,
        queue_length: int = 65536,
        temperature: float = 0.2,
        terms: Mapping[str, Mapping[str, Any]] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not is_number(temperature) or temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {temperature!r}; MoCo v2 uses 0.2")
        check_count("queue_length", queue_length, remedy="; MoCo uses 65536 keys")
        self.temperature = temperature
        if not isinstance(terms or {}, Mapping):
            raise TypeError(f"terms must be a dict of dicts, e.g. dict(main=dict(weight=1.0)), got {terms!r}")
        self.terms = {name: _term(name, cfg) for name, cfg in (terms or {"main": {}}).items()}
        names = dict.fromkeys(term.queue for term in self.terms.values())
        self.queues = nn.ModuleDict(
            {name: FeatureQueue(queue_length, embed_dims, num_views=1, seed=i) for i, name in enumerate(names)}
        )
        # The oldest supported torch lacks the public method of this name.
        self._register_load_state_dict_pre_hook(check_head_state, with_module=True)

    def _queue(self, name: str) -> FeatureQueue:
        return cast(FeatureQueue, self.queues[name])

    def loss(self, queries: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes all weighted terms, whose sum is minimised.

        Args:
            queries: Per name, (N, D) of unit length.
            keys: Per name, (N, D) of unit length, no gradient.

        Returns:
            ``loss_<term>`` and, for the log, ``nce_ratio_<term>``: the cross-entropy over ln(1 + L). A ratio of 1
            means that nothing is learned.
        """
        losses, ratios = {}, {}
        with torch.autocast(next(iter(queries.values())).device.type, enabled=False):
            for name, term in self.terms.items():
                negatives = self._queue(term.queue).embeddings[0]
                record(f"embeddings.{name}", queries[term.query], keys[term.key])
                nce = info_nce(
                    precise(queries[term.query]), precise(keys[term.key]), negatives, temperature=self.temperature
                )
                losses[f"loss_{name}"] = term.weight * nce
                ratios[f"nce_ratio_{name}"] = nce.detach() / math.log(1 + len(negatives))
        return {**losses, **ratios}

    def push(self, keys: Mapping[str, Tensor]) -> None:
        """Replaces the oldest keys of every queue.

        Args:
            keys: Per queue's name, (N, D) of all ranks.
        """
        for name in self.queues:
            self._queue(name).push(keys[name][None])

    def stuck_advice(self, term: str) -> str | None:
        """Returns the remedy for a ratio that stays at 1; None while its queue still holds random vectors.

        Args:
            term: Name of the term.
        """
        if not self._queue(self.terms[term].queue).is_full:
            return None
        return (
            f"all embeddings are alike and it learns nothing. Lower the learning rate, or check that the images differ "
            f"and that batch norm is grouped (norm_cfg=dict(type='GroupedBN', group_size=32)); the temperature is "
            f"{self.temperature:g}"
        )


def _term(name: str, cfg: Mapping[str, Any]) -> Term:
    if "loss" in name or "." in name:  # mmengine adds up all values whose names contain "loss"
        raise ValueError(f"terms.{name}: a name must not contain 'loss' or a dot; rename the term")
    if not isinstance(cfg, Mapping):
        raise TypeError(f"terms.{name} must be a dict such as dict(weight=1.0), got {cfg!r}")
    if unknown := sorted(set(cfg) - set(Term._fields)):
        raise ValueError(f"terms.{name} has unknown fields {unknown}: allowed are {list(Term._fields)}")
    key = cfg.get("key", name)
    term = Term(cfg.get("query", name), key, cfg.get("queue", key), cfg.get("weight", 1.0))
    if not is_number(term.weight) or term.weight < 0:
        raise ValueError(f"terms.{name}.weight must be a number >= 0, got {term.weight!r}")
    return term
