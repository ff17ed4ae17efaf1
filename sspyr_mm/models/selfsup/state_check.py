"""Refuses weights that would be left out silently.

mmengine loads non-strictly: what does not match is a line in the log, and training goes on from noise.
"""

from typing import Any

from torch import nn


def check_complete(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pre-hook of ``load_state_dict``: every tensor of a module must be there, in its shape.

    Args:
        module: What is loaded into.
        state_dict: The checkpoint's tensors. Further ones (a classifier, say) don't matter.
        prefix: The module's prefix in it.

    Raises:
        ValueError: If a tensor is missing or has another shape; the message lists them and says how to mend it.
    """
    ours = module.state_dict(prefix=prefix)
    # Checkpoints older than these counters have none; they are not used at a fixed momentum.
    needed = {k: v for k, v in ours.items() if not k.endswith("num_batches_tracked")}
    missing = [k for k in needed if k not in state_dict]
    shapes = [
        f"{k} {tuple(state_dict[k].shape)}, here {tuple(v.shape)}"
        for k, v in needed.items()
        if k in state_dict and tuple(state_dict[k].shape) != tuple(v.shape)
    ]
    if missing or shapes:
        raise ValueError(
            f"The checkpoint does not fit this {type(module).__name__}: {len(missing)} of {len(needed)} tensors are "
            f"missing ({', '.join(missing[:3])}, ...), {len(shapes)} have another shape ({'; '.join(shapes[:3])}). It "
            f"holds {', '.join(list(state_dict)[:3])}, ... For a backbone alone give its file, with the backbone's own "
            "names, as model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix=PREFIX); for a whole "
            "model, train with the config it was made with."
        )
