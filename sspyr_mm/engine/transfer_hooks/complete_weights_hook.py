"""Weights a network starts from must fit it completely."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from sspyr_mm.models.state_check import check_complete


@HOOKS.register_module()
class CompleteWeightsHook(Hook):
    """Makes ``init_cfg=dict(type='Pretrained', ...)`` refuse a file that lacks a tensor of the module.

    mmengine loads such a file non-strictly: with names it does not know, a network is trained from noise, and a line in
    the log is all that says so. Works with the models of mmpretrain, mmdet and mmseg.
    """

    def before_run(self, runner: Runner) -> None:
        """Guards every module that starts from a file; weights are initialised after this."""
        for module in runner.model.modules():
            given = getattr(module, "init_cfg", None)
            configs = given if isinstance(given, (list, tuple)) else [given]
            if any(isinstance(c, dict) and c.get("type") == "Pretrained" for c in configs):
                module._register_load_state_dict_pre_hook(check_complete, with_module=True)
