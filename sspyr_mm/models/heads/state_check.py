"""Refuses a checkpoint of another pyramid."""

from typing import Any

from torch import nn


def check_head_state(head: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Compares a checkpoint's head with this one, before anything is loaded.

    mmengine loads non-strictly: without this check a queue or prototypes of another size would be skipped with a log
    line and training would go on from noise. A checkpoint without any head (a backbone to start from) passes.

    Args:
        head: The head that is loaded into.
        state_dict: The checkpoint's tensors.
        prefix: The head's prefix in it.

    Raises:
        ValueError: If names or shapes differ; the message lists them and says how to mend it.
    """
    ours = head.state_dict(prefix=prefix)
    given = {k: v for k, v in state_dict.items() if k.startswith(prefix)}
    if not given:
        return
    lines = [f"  {k}: here, not in the checkpoint" for k in sorted(set(ours) - set(given))]
    lines += [f"  {k}: in the checkpoint, not here" for k in sorted(set(given) - set(ours))]
    lines += [
        f"  {k}: {tuple(given[k].shape)} in the checkpoint, {tuple(ours[k].shape)} here"
        for k in sorted(set(ours) & set(given))
        if tuple(given[k].shape) != tuple(ours[k].shape)
    ]
    if lines:
        raise ValueError(
            "The checkpoint was trained with another pyramid, variant or queue:\n"
            + "\n".join(lines)
            + "\nTrain with the config it was made with, or take over the backbone alone: "
            "`python -m sspyr_mm export CKPT OUT` and "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint='OUT')."
        )
