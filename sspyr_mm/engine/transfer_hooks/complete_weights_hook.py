"""Checks that pretrained weights are complete."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.models.state_check import check_complete


@HOOKS.register_module()
class CompleteWeightsHook(Hook):
    """Makes ``init_cfg=dict(type='Pretrained', ...)`` reject a file that lacks a tensor of the module.

    mmengine loads such a file non-strictly: with unknown names, the network trains from random weights, and only a log
    line reports it. Works with the models of mmpretrain, mmdet and mmseg.
    """

    def before_run(self, runner: Runner) -> None:
        """Registers the check for every module with pretrained weights, which are loaded afterwards."""
        for module in runner.model.modules():
            given = getattr(module, "init_cfg", None)
            configs = given if isinstance(given, (list, tuple)) else [given]
            if any(isinstance(c, dict) and c.get("type") == "Pretrained" for c in configs):
                module._register_load_state_dict_pre_hook(check_complete, with_module=True)
