"""Base class of pre-training models: views of images -> data preprocessor -> backbone."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from sspyr_mm.health import record
from sspyr_mm.models.assigners import FeatureQueue
from sspyr_mm.models.layers import last_output, pool, recompute_stages, recomputed, rows_per_image
from sspyr_mm.models.state_check import check_complete
from sspyr_mm.views import ViewsSpec


class ViewModel(BaseSelfSupervisor):
    """Base class of models that train on augmented views of images.

    A subclass implements ``loss(inputs, data_samples)``. ``inputs`` holds, per group's name, patches
    (V, B, M, 3, P, P); the result is a dict of scalars, of which those named ``loss_*`` are added up and all are
    logged. It also implements ``size_messages`` if settings depend on the number of images. Data transforms, data
    preprocessor, hooks, checkpoints and commands work with any of them.

    Args:
        views: Config of the views, or a spec; transforms and preprocessor use them.
        backbone: Config of any mmpretrain backbone that returns a map, tokens or vectors.
        neck: Config of the neck, or None.
        head: Config of the head, or None.
        data_preprocessor: Config of :class:`PyramidAugment`.
        channels_last: Whether the backbone uses channels-last tensors, which are faster on tensor cores and CPUs;
            results differ by rounding only.
        recompute: Activations to recompute in the backward pass instead of keeping them: ``None``; ``'scale'`` for
            those of the backbone, one group at a time; ``'stage'`` for those of every stage of the backbone, which
            needs the least memory. Gradients are the same. Both cost one more forward pass.
        compile_backbone: Whether to compile the backbone with ``torch.compile``: one graph per patch size, in the
            first steps, which take minutes. Names in checkpoints do not change.
        pretrained: Checkpoint to start from.
        init_cfg: Config of the initialisation.

    Raises:
        ValueError: If ``recompute`` is unknown, or the backbone has no stages or ``with_cp``; if ``recompute='stage'``
            is combined with ``compile_backbone``.
    """

    def __init__(
        self,
        views: ViewsSpec | Mapping[str, Any],
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        data_preprocessor: dict | None = None,
        *,
        channels_last: bool = False,
        recompute: str | None = None,
        compile_backbone: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if recompute not in (None, "scale", "stage"):
            raise ValueError(f"recompute must be None, 'scale' or 'stage', got {recompute!r}")
        if compile_backbone and recompute == "stage":
            raise ValueError("compile_backbone=True does not support recompute='stage': use recompute='scale'")
        if backbone.get("with_cp"):
            raise ValueError(
                "backbone.with_cp=True updates the running averages of batch norm twice per step: remove it, and set "
                "model.recompute='stage', which saves the same memory"
            )
        views = ViewsSpec.from_config(views)
        preprocessor = {"type": "PyramidAugment", **(data_preprocessor or {})}
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            pretrained=pretrained,
            data_preprocessor=MODELS.build({**preprocessor, "views": views}),
            init_cfg=init_cfg,
        )
        self.views = views
        self.channels_last = channels_last
        self.recompute = recompute
        self.backbone.to(memory_format=self.memory_format)
        if recompute == "stage":
            recompute_stages(self.backbone)
        if compile_backbone:
            self.backbone.compile(dynamic=False)
        self.backbone._register_load_state_dict_pre_hook(check_complete, with_module=True)

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of the backbone and its input."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def init_weights(self) -> None:
        """Initialises weights in contiguous memory order, so that ``channels_last`` does not change random numbers."""
        self.backbone.to(memory_format=torch.contiguous_format)
        super().init_weights()
        self.backbone.to(memory_format=self.memory_format)

    def size_messages(self, num_images: int) -> list[str]:
        """Reports settings that are too large for the number of images, one message per setting."""
        return []

    def num_cells(self, group: str) -> int:
        """Returns the number of cells per image in a group that health measures: patches, or positions of a map."""
        return 1

    def queued_per_image(self, group: str) -> int:
        """Returns the number of rows that an image adds to the queue of a group."""
        return self.num_cells(group)

    def queue_of(self, group: str) -> FeatureQueue | None:
        """Returns the queue of a group that health measures."""
        return None

    def changed_by_hooks(self) -> list[nn.Parameter]:
        """Returns the parameters that hooks change after the optimizer's step."""
        return []

    def encode(
        self,
        patches: Tensor,
        backbone: nn.Module | None = None,
        *,
        reduce: Callable[[Any], Any] = pool,
        per_image: int = 1,
    ) -> Any:
        """Encodes patches (N, 3, P, P) in the model's memory format, with recomputed activations if it is set.

        Args:
            patches: Patches.
            backbone: Backbone to use; default: the trained one.
            reduce: Function of the backbone's output; default: the mean over space or tokens, (N, C).
            per_image: Number of consecutive patches that belong to one image, for grouped norm layers.
        """

        def run(x: Tensor) -> Any:
            with rows_per_image(per_image):
                record("patches", x)  # the first are those of the trained backbone
                feats = (backbone or self.backbone)(x.contiguous(memory_format=self.memory_format))
            record("maps", last_output(feats))
            return reduce(feats)

        return recomputed(run, self, patches) if self.recompute == "scale" else run(patches)


def with_one_size(neck: dict, head: dict) -> tuple[dict, dict]:
    """Returns the configs of neck and head with the embedding size that one of them states.

    Raises ValueError if both state one.
    """
    sizes = {c[key] for c, key in ((neck, "out_channels"), (head, "embed_dims")) if key in c}
    if len(sizes) > 1:
        raise ValueError(
            f"neck.out_channels is {neck['out_channels']} and head.embed_dims {head['embed_dims']}, but both are the "
            "embedding size: remove head.embed_dims, which defaults to the neck's"
        )
    for size in sizes:
        neck, head = {**neck, "out_channels": size}, {**head, "embed_dims": size}
    return neck, head


def pretraining_models() -> dict[str, type[ViewModel]]:
    """Returns all registered pre-training models by their names in a config."""
    found: dict[str, type[ViewModel]] = {}
    waiting: list[type[ViewModel]] = [ViewModel]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if MODELS.module_dict.get(kind.__name__) is kind:
                found[kind.__name__] = kind
    return found
