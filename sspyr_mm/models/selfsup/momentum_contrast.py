"""Momentum contrast: queries of a trained encoder, keys of its momentum copy, queues of earlier keys."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from sspyr_mm.models.assigners import FeatureQueue
from sspyr_mm.models.layers import BatchShuffle, MomentumEncoder, average_statistics, precise
from sspyr_mm.models.necks import DenseProjector, LevelProjectors, MLPProjector, RegionProjector
from sspyr_mm.models.selfsup.view_model import ViewModel, with_one_size
from sspyr_mm.models.state_check import check_head_state
from sspyr_mm.views import ViewsSpec

Encoder: TypeAlias = Mapping[str, nn.Module] | nn.ModuleDict
"""Modules ``backbone`` and ``neck``."""
GROUP = "main"
"""Name of the group of the two views: queries are computed from the first, keys from the second."""


class MomentumModel(ViewModel):
    """Base class of models with a momentum encoder, which :class:`MomentumHook` updates after every step.

    Args:
        views: Config of the views, with a group ``main`` of two views.
        backbone: Config of any mmpretrain backbone.
        neck: Config of the projector.
        head: Config of the head.
        data_preprocessor: Config of :class:`PyramidAugment`.
        **kwargs: Arguments of :class:`ViewModel`.

    Raises:
        ValueError: If there is no group ``main`` of two views with one patch each, or a group that the method does not
            use.
    """

    groups: ClassVar[tuple[str, ...]] = (GROUP,)
    """Groups of views that the method uses."""

    def __init__(
        self,
        views: ViewsSpec | Mapping[str, Any],
        backbone: dict,
        neck: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        **kwargs: Any,
    ) -> None:
        spec = ViewsSpec.from_config(views)
        self._check_views(spec)
        if not isinstance(neck, dict):
            raise TypeError(f"{type(self).__name__} needs a neck, e.g. neck=dict(type='MLPProjector'), got {neck!r}")
        neck, head = with_one_size(neck, head)
        super().__init__(spec, backbone, neck, head, {**(data_preprocessor or {}), "with_seeds": True}, **kwargs)
        # Before the copy, which has the same checks.
        self.neck._register_load_state_dict_pre_hook(check_head_state, with_module=True)
        self.momentum = MomentumEncoder(self.trained)
        if kwargs.get("compile_backbone"):  # copies are not compiled
            self.momentum["backbone"].compile(dynamic=False)
        self._register_load_state_dict_pre_hook(self.momentum.fill_missing, with_module=True)
        self._is_pending = False

    def _check_views(self, spec: ViewsSpec) -> None:
        found = {group.name: group for group in spec.groups}
        main = found.get(GROUP)
        if main is None or main.num_views != 2 or main.num_patches != 1:
            raise ValueError(
                f"{type(self).__name__} needs a group of two views: views=dict({GROUP}=dict(num_views=2, ...))"
            )
        if set(found) != set(self.groups):
            raise ValueError(f"{type(self).__name__} uses the groups {list(self.groups)} of views, got {list(found)}")

    @property
    def trained(self) -> dict[str, nn.Module]:
        """Modules that the momentum encoder copies, by name."""
        return {"backbone": self.backbone, "neck": self.neck}

    def changed_by_hooks(self) -> list[nn.Parameter]:
        """Returns the parameters of the momentum encoder."""
        return list(self.momentum.parameters())

    def init_weights(self) -> None:
        """Initialises weights and copies them to the momentum encoder, unless a checkpoint of the model has one."""
        self.momentum.is_loaded = False
        super().init_weights()
        if not self.momentum.is_loaded:
            self.momentum.reset()

    def begin_step(self) -> None:
        """Notes that a step in training has begun.

        Raises:
            RuntimeError: If :meth:`finish_step` was not called after the previous one.
        """
        if self._is_pending:
            raise RuntimeError(
                f"The momentum encoder was not updated after the last batch: add dict(type='MomentumHook') to "
                f"default_hooks, which calls finish_step() of {type(self).__name__} after every iteration"
            )
        self._is_pending = self.training

    def finish_step(self, momentum: float | None) -> None:
        """Updates state after an iteration. Collective over ranks.

        Args:
            momentum: m of the momentum encoder; None if the optimizer made no step in this iteration.
        """
        self._is_pending = False
        if momentum is not None:
            self.momentum.follow(momentum)
        average_statistics(self)


@MODELS.register_module()
class MoCoV2(MomentumModel):
    """MoCo v2: a query is contrasted with the key of the other view of its image, among a queue of earlier keys.

    The momentum encoder sees the images of all ranks in a random order, so that a query and its key do not share
    batch statistics; with ``GroupedBN`` this holds within one process, too.

    Keys enter the queues in :meth:`finish_step`, after the backward pass, which :class:`MomentumHook` calls.

    Args: those of :class:`MomentumModel`; the head is a :class:`ContrastHead`.

    Source: MoCo, algorithm 1; MoCo v2, section 3; facebookresearch/moco ``builder.py``.
    """

    projector: ClassVar[type[nn.Module]] = MLPProjector
    """Neck of the method, among those of this package."""
    _keys: dict[str, Tensor] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        others = (MLPProjector, DenseProjector, LevelProjectors, RegionProjector)
        if isinstance(self.neck, others) and not isinstance(self.neck, self.projector):
            raise ValueError(
                f"The neck of {type(self).__name__} is {self.projector.__name__}, got {type(self.neck).__name__}"
            )
        queries, keys, queues = self.embedding_names()
        for name, term in self.head.terms.items():
            for field, value, known in zip(("query", "key", "queue"), term, (queries, keys, queues), strict=False):
                if value not in known:
                    raise ValueError(
                        f"model.head.terms.{name}.{field} is {value!r}, which {type(self).__name__} does not compute: "
                        f"set it to one of {sorted(known)}"
                    )
        if missing := sorted(set(queries) - {term.query for term in self.head.terms.values()}):
            raise ValueError(
                f"No term of the loss uses the embeddings {missing} of {type(self).__name__}: add them to "
                "model.head.terms, with weight=0 to leave them out"
            )

    def embedding_names(self) -> tuple[list[str], list[str], list[str]]:
        """Returns the names of the queries and keys of :meth:`pair`, and of the keys of :meth:`embed` for queues."""
        return ["main"], ["main"], ["main"]

    def size_messages(self, num_images: int) -> list[str]:
        """Reports a queue that is longer than the data set."""
        longest = max(queue.length for queue in self.head.queues.values())
        if longest <= num_images:
            return []
        return [
            f"The queue holds {longest} keys of {num_images} images: most queries meet earlier keys of their own image "
            f"as negatives. Set model.head.queue_length to {max(1, num_images // 4)}, a quarter of the images."
        ]

    def queue_of(self, group: str) -> FeatureQueue | None:
        """Returns the queue of a term of the loss."""
        return self.head.queues[self.head.terms[group].queue]

    def queued_per_image(self, group: str) -> int:
        """See :meth:`ViewModel.queued_per_image`: each queue gets one key per image."""
        return 1

    def embed(self, encoder: Encoder, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds one view of a batch.

        Args:
            encoder: ``backbone`` and ``neck``: the trained ones, or those of the momentum encoder.
            images: Per group's name, (B, M, 3, P, P); ``<group>_boxes`` (B, n, 4).

        Returns:
            Per name, (B, ...), at least float32. Those of queues' names are (B, D) of unit length.
        """
        z = encoder["neck"](self.encode(images[GROUP].flatten(0, 1), encoder["backbone"]))
        return {"main": F.normalize(precise(z), dim=1)}

    def loss(self, inputs: Mapping[str, Tensor], data_samples: list | None = None) -> dict[str, Tensor]:
        """Computes the losses of one batch. Collective over ranks.

        Args:
            inputs: Per group's name, patches (2, B, M, 3, P, P) and, if it has boxes, ``<group>_boxes`` (2, B, n, 4) in
                pixels; ``seed``, (B,) seeds of the images.
            data_samples: Not used: the method needs no labels.

        Returns:
            See :meth:`ContrastHead.loss`.

        Raises:
            RuntimeError: See :meth:`begin_step`.
        """
        self.begin_step()
        names = [name for name in inputs if name != "seed"]
        embedded = self.embed(self.trained, {name: inputs[name][0] for name in names})
        with torch.no_grad():
            shuffle = BatchShuffle(inputs["seed"])
            images = {name: shuffle.shuffle(inputs[name][1]) for name in names}
            keys = {name: shuffle.restore(k) for name, k in self.embed(self.momentum, images).items()}
        if self.training:
            self._keys = {name: keys[name][1] for name in self.head.queues}
        return self.head.loss(*self.pair(embedded, {name: mine for name, (mine, _) in keys.items()}))

    def pair(self, queries: dict[str, Tensor], keys: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns queries and keys (N, D) of every term of the loss from the outputs of :meth:`embed`."""
        return queries, keys

    def finish_step(self, momentum: float | None) -> None:
        """Updates the momentum encoder and pushes the keys of the batch to the queues. Collective over ranks."""
        super().finish_step(momentum)
        if self._keys is not None:
            self.head.push(self._keys)
            self._keys = None
