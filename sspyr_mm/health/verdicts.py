"""Verdicts on measures of health: signs of a run that learns nothing, or the wrong thing, with cause and remedy."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Values = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """A sign that was found: its name, and what it means and what helps."""

    sign: str
    advice: str


@dataclass(frozen=True)
class _Sign:
    name: str
    shows: Callable[[Values], bool]
    advice: str


def _few_prototypes(v: Values) -> bool:
    # uniform codes have an arbitrary largest entry: the run is stuck
    return "used" in v and v["used"] < 0.1 * min(v["prototypes"], v["codes"]) and v.get("entropy", 0.0) <= 0.9


_OF_THE_HEAD = ""  # the head of the method knows the cause
# The first sign that shows is the verdict: a later one can follow from it. Thresholds: docs/health.md.
_SIGNS = (
    _Sign(
        "few prototypes",
        _few_prototypes,
        "most prototypes are never chosen. Set model.head.assigner.num_iterations higher, use fewer prototypes, or a "
        "larger batch or queue",
    ),
    _Sign(
        "blank images",
        lambda v: v.get("contrast", 1.0) < 0.05,
        "the patches show nothing. Look at them: python tools/browse_views.py CONFIG --data-root DIR",
    ),
    _Sign(
        "old queue",
        lambda v: v.get("queue_steps", 0.0) > v.get("epoch_steps", 1e9),
        "the queue holds embeddings of more than an epoch, by earlier weights. Use a shorter queue_length",
    ),
    _Sign("stuck", lambda v: v.get("entropy", 0.0) > 0.9, _OF_THE_HEAD),
    _Sign(
        "collapsed",
        lambda v: v.get("deviation", 1.0) < 0.25,
        "embeddings are nearly alike. Lower optim_wrapper.optimizer.lr, and check that the images differ",
    ),
    _Sign("stuck", lambda v: abs(v.get("ratio", 0.0) - 1) <= 0.01, _OF_THE_HEAD),
    _Sign(
        "worse than uniform",
        lambda v: v.get("ratio", 0.0) > 1.05,
        "predictions are worse than uniform ones. Lower optim_wrapper.optimizer.lr, or warm up for longer",
    ),
    _Sign(
        "equal views",
        lambda v: v.get("alignment", 0.0) > 0.995,
        "the two views of a patch have the same embedding. Check the augmentation: model.data_preprocessor.jitter, "
        "jitter_prob, and the area of the views",
    ),
    _Sign(
        "position",
        lambda v: v.get("position", 0.0) > 0.2,
        "prototypes encode the position of a patch in its image instead of the content. Check the images for borders "
        "and equal layouts, and use a larger range of the area of the regions",
    ),
    _Sign(
        "position",
        lambda v: v.get("position_share", 0.0) > 0.5,
        "embeddings encode the position in the map instead of the content. Zero padding reveals the position: set "
        "model.backbone.conv_cfg=dict(type='Conv2d', padding_mode='circular')",
    ),
    _Sign(
        "few dimensions",
        lambda v: v.get("rank", 2.0) < 1.5,
        "embeddings use few of their dimensions. Lower optim_wrapper.optimizer.lr, or use stronger augmentation",
    ),
)


def judge(values: Values, stuck_advice: str | None) -> Finding | None:
    """Returns the sign that a group shows, None if it is fine.

    Args:
        values: Measures by name; ``ratio`` is the loss over its value for equal embeddings, ``prototypes`` is K,
            ``codes`` the number of counted codes, ``queue_steps`` and ``epoch_steps`` the iterations whose embeddings a
            queue holds and those of an epoch.
        stuck_advice: Remedy of the method's head for a loss that stays at that value; None if it cannot be judged yet.
    """
    judged = values.keys() - (() if stuck_advice is not None else {"ratio"})
    values = {name: values[name] for name in judged if math.isfinite(values[name])}  # others: DivergenceHook reports
    for sign in _SIGNS:
        if sign.shows(values):
            return Finding(sign.name, sign.advice or str(stuck_advice))
    return None
