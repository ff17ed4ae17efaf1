"""Head of SS-PRL: scores -> codes -> losses.

Dimensions: V views, B images, M patches, N = B * M samples, K prototypes, D channels.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from mmengine.dist import all_gather
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS, TASK_UTILS
from torch import Tensor, nn
from torch.nn import functional as F

from sspyr_mm.health import record
from sspyr_mm.models.assigners import FeatureQueue, SinkhornAssigner
from sspyr_mm.models.layers import CorrelationLearner, Prototypes
from sspyr_mm.models.layers.correlation_learner import CorrelationInput
from sspyr_mm.models.losses import swapped_cross_entropy
from sspyr_mm.models.state_check import check_head_state
from sspyr_mm.pyramid import NUM_VIEWS, PyramidSpec, ScaleSpec


class Variant(NamedTuple):
    """Differences between the paper and the authors' code in the head."""

    swapped_loss: dict[str, Any]
    cross_scale_loss: dict[str, Any]
    correlation_input: CorrelationInput


VARIANTS = {
    "paper": Variant(
        swapped_loss=dict(type="SwappedPredictionLoss", reduction="sum"),
        cross_scale_loss=dict(type="CrossScaleLoss", pairs="matched", reduction="sum"),
        correlation_input="probabilities",
    ),
    "official": Variant(
        swapped_loss=dict(type="SwappedPredictionLoss", reduction="mean"),
        cross_scale_loss=dict(type="CrossScaleLoss", pairs="all", reduction="mean"),
        correlation_input="scores",
    ),
}


def _build_loss(given: Mapping[str, Any] | None, default: Mapping[str, Any]) -> nn.Module:
    """Builds a loss; the variant sets the arguments that a config of the default type omits."""
    cfg = {"type": default["type"], **(given or {})}
    kind = MODELS.get(cfg["type"]) if isinstance(cfg["type"], str) else cfg["type"]
    return MODELS.build({**default, **cfg} if kind is MODELS.get(default["type"]) else cfg)


@MODELS.register_module()
class SSPRLHead(BaseModule):
    """Owns prototypes, correlation learners and queues; computes codes and all losses.

    State: prototypes and correlation learners are parameters; queues are buffers, equal on all ranks. All of them are
    in the checkpoint; loading rejects a checkpoint of another pyramid.

    Args:
        pyramid: Config of the pyramid, or a spec.
        embed_dims: D, size of an embedding.
        variant: ``paper`` or ``official`` (the authors' code); sets the input of the correlation learners and the
            arguments of the two losses, see :data:`VARIANTS`.
        temperature: tau of the predictions, > 0.
        assigner: Config of the assigner; default: :class:`SinkhornAssigner` with epsilon 0.05 and 3 iterations.
        swapped_loss: Config of the loss per scale; default: :class:`SwappedPredictionLoss`. A loss of another type
            maps codes (2, N, K) and log-probabilities (V, N, K) to a scalar; the head multiplies it by alpha.
        cross_scale_loss: Config of the loss across scales; default: :class:`CrossScaleLoss`, whose ``loss_weight``
            is lambda. A loss of another type maps codes (2, B, K_0), log-predictions ``{scale: (2, B, K_0)}`` and
            betas ``{scale: weight}`` to ``{'loss_...': scalar}``.
        shared_prototypes: Whether all scales share one C and so have the same number of prototypes (table S-C).
        init_cfg: Config of the initialisation.

    Raises:
        ValueError: If the variant is unknown, the temperature not positive, or scales that share prototypes differ in
            their number.

    Source: Algorithm 1; for ``official`` the authors' ``main_SSPRL.py``.
    """

    def __init__(
        self,
        pyramid: PyramidSpec | Mapping[str, Any],
        embed_dims: int = 128,
        *,
        variant: str = "paper",
        temperature: float = 0.1,
        assigner: dict | None = None,
        swapped_loss: dict | None = None,
        cross_scale_loss: dict | None = None,
        shared_prototypes: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if variant == "release":  # name until version 0.2
            warnings.warn("variant='release' is now variant='official'", FutureWarning, stacklevel=2)
            variant = "official"
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {sorted(VARIANTS)}, got {variant!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}; the paper's is 0.1")
        self.spec = PyramidSpec.from_config(pyramid)
        self.temperature = temperature
        self.shared_prototypes = shared_prototypes
        self._queues_in_use = True
        self.assigner: SinkhornAssigner = TASK_UTILS.build({"type": "SinkhornAssigner", **(assigner or {})})
        choice = VARIANTS[variant]
        self.swapped_loss = _build_loss(swapped_loss, choice.swapped_loss)
        self.cross_scale_loss = _build_loss(cross_scale_loss, choice.cross_scale_loss)
        scales = self.spec.scales
        self.prototypes = nn.ModuleDict(
            {s.name: Prototypes(s.num_prototypes, embed_dims) for s in (scales[:1] if shared_prototypes else scales)}
        )
        self.correlation = nn.ModuleDict(
            {
                s.name: CorrelationLearner(
                    s.num_prototypes, scales[0].num_prototypes, source=choice.correlation_input, temperature=temperature
                )
                for s in scales[1:]
                if s.beta > 0
            }
        )
        self.queues = nn.ModuleDict(
            {s.name: FeatureQueue(s.queue_length, embed_dims) for s in scales if s.queue_length > 0}
        )
        self._check_shared()
        # The oldest supported torch lacks the public method of this name.
        self._register_load_state_dict_pre_hook(check_head_state, with_module=True)

    def _check_shared(self) -> None:
        counts = {s.name: s.num_prototypes for s in self.spec.scales}
        if self.shared_prototypes and len(set(counts.values())) > 1:
            raise ValueError(
                f"shared_prototypes needs the same num_prototypes at every scale, got {counts}: set them equal"
            )

    def prototypes_of(self, scale: ScaleSpec) -> Prototypes:
        """Returns the prototypes of a scale; those of scale 0 if they are shared."""
        return cast(Prototypes, self.prototypes["s0" if self.shared_prototypes else scale.name])

    def _queue(self, name: str) -> FeatureQueue:
        return cast(FeatureQueue, self.queues[name])

    def use_queues(self, active: bool) -> None:
        """Switches the queues on or off; while off, they are neither filled nor used.

        Args:
            active: Whether to compute codes with the queues.
        """
        self._queues_in_use = active

    def target_parameters(self) -> list[nn.Parameter]:
        """Yields prototypes and correlation learners, which the official code freezes in its first iterations."""
        return [*self.prototypes.parameters(), *self.correlation.parameters()]

    def normalize_(self) -> None:
        """Normalises prototypes (and, in the official variant, rows of g) to unit length, in place."""
        for module in (*self.prototypes.values(), *self.correlation.values()):
            cast(Prototypes | CorrelationLearner, module).normalize_()

    def stuck_advice(self, scale_name: str) -> str:
        """Returns the cause and remedy of a cross-entropy that stays at ln K."""
        epsilon = self.assigner.epsilon
        return (
            f"the predictions or codes of {scale_name} are uniform: it has learned nothing. If the run was short, "
            "train for more epochs. Otherwise set model.head.assigner.epsilon lower (now "
            f"{epsilon:g}; try {min(0.01, epsilon / 2):g}), use AdamW with lr 0.003 in place of LARS "
            "(configs/_base_/schedules/adamw.py), or a larger batch. See docs/small_batches.md"
        )

    def loss(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes all weighted loss terms, whose sum is minimised. Collective over ranks.

        Args:
            embeddings: Per group's name, (V, B, M, D) of unit length; B is the same on every rank.

        Returns:
            ``loss_pyr_s0``, ..., ``loss_cross_s1``, ... and, for the log, ``ce_ratio_s0``, ...: the swapped
            prediction's mean cross-entropy over ln K. A ratio of 1 means that nothing is learned.
        """
        with torch.autocast(next(iter(embeddings.values())).device.type, enabled=False):
            embeddings = {name: z.float() for name, z in embeddings.items()}
            codes = self.assign_codes(embeddings)
            for name, views in codes.items():
                record(f"embeddings.{name}", embeddings[name].flatten(1, 2))
                record(f"codes.{name}", views)
            scores = {
                g.name: self.prototypes_of(scale)(embeddings[g.name])
                for scale in self.spec.scales
                for g in self.spec.groups_of(scale)
            }
            return {**self._pyramid_losses(codes, scores), **self._cross_losses(codes, scores)}

    @torch.no_grad()
    def assign_codes(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the codes of both views of every scale and updates the queues. Collective over ranks.

        All scales and views are solved together, so that a step has one collective per Sinkhorn iteration and, with
        queues, one more.

        Args:
            embeddings: Per group's name, (V, B, M, D).

        Returns:
            Per scale's name, (2, B * M, K), no gradient.
        """
        problems = []
        for scale in self.spec.scales:
            z = embeddings[scale.name].flatten(1, 2)
            if self._queues_in_use and scale.name in self.queues:
                z = torch.cat([z, self._queue(scale.name).shard()], dim=1)
            problems += list(self.prototypes_of(scale)(z))
        solved = self.assigner.assign_many(problems)
        codes = {}
        for scale in self.spec.scales:
            num_samples = embeddings[scale.name].shape[1] * scale.num_patches
            views = solved[NUM_VIEWS * scale.scale_idx :][:NUM_VIEWS]
            codes[scale.name] = torch.stack([q[:num_samples] for q in views])
        if self._queues_in_use:
            self._push(embeddings)
        return codes

    def _push(self, embeddings: Mapping[str, Tensor]) -> None:
        """Pushes the batch of all ranks to the queues, with one collective for all of them."""
        if not self.queues:
            return
        local = [embeddings[name].flatten(1, 2) for name in self.queues]
        gathered = torch.cat(all_gather(torch.cat(local, dim=1)[None]))  # (ranks, V, sum of N, D)
        sizes = [x.shape[1] for x in local]
        for name, z in zip(self.queues, gathered.split(sizes, dim=2), strict=True):
            self._queue(name).push(z.transpose(0, 1).flatten(1, 2))

    def _pyramid_losses(self, codes: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        losses, ratios = {}, {}
        for scale in self.spec.scales:
            views = [scores[g.name].flatten(1, 2) for g in self.spec.groups_of(scale)]
            log_probs = F.log_softmax(torch.cat(views) / self.temperature, dim=-1)
            loss = self.swapped_loss(codes[scale.name], log_probs)
            losses[f"loss_pyr_{scale.name}"] = scale.alpha * loss
            if scale.num_prototypes > 1:
                entropy = swapped_cross_entropy(codes[scale.name], log_probs.detach())
                ratios[f"ce_ratio_{scale.name}"] = entropy / math.log(scale.num_prototypes)
        return {**losses, **ratios}

    def _cross_losses(self, codes: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        log_predictions = {name: learner(scores[name]) for name, learner in self.correlation.items()}
        betas = {s.name: s.beta for s in self.spec.scales if s.name in self.correlation}
        return self.cross_scale_loss(codes["s0"], log_predictions, betas)
