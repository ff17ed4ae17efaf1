"""Settings of the command line are set if something reads them, and rejected otherwise."""

import re

import pytest
from mmengine.config import Config
from project import ROOT

from sspyr_mm.engine.options import check_names, merge_options

SMALL = ROOT / "configs/ssprl/r18_small_50e.py"
LABELLED = ROOT / "configs/benchmarks/classification/linear_coco14_50e.py"


@pytest.fixture
def cfg():
    return Config.fromfile(SMALL)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        # misplaced
        ("epochs=7", "train_cfg.max_epochs=7"),
        ("max_epochs=7", "train_cfg.max_epochs=7"),
        ("train_cfg.epochs=7", "train_cfg.max_epochs=7"),
        ("batch_size=3", "train_dataloader.batch_size=3"),
        ("lr=0.5", "optim_wrapper.optimizer.lr=0.5"),
        ("learning_rate=0.5", "optim_wrapper.optimizer.lr=0.5"),
        ("optimizer.lr=0.5", "optim_wrapper.optimizer.lr=0.5"),
        ("optim_wrapper.lr=0.5", "optim_wrapper.optimizer.lr=0.5"),
        ("data_root=x", "train_dataloader.dataset.data_root=x"),
        ("backbone.depth=34", "model.backbone.depth=34"),
        # misspelt
        ("optim_wraper.optimizer.lr=0.5", "optim_wrapper.optimizer.lr=0.5"),
        ("trainer_cfg.max_epochs=7", "train_cfg.max_epochs=7"),
        ("model.backbone.dept=34", "model.backbone.depth=34"),
        ("model.head.assigner.epsillon=0.1", "model.head.assigner.epsilon=0.1"),
        ("train_dataloader.batchsize=3", "train_dataloader.batch_size=3"),
        ("train_dataloader.dataset.pipeline.0.skip_brocken=1", "skip_broken=1"),
        ("optim_wrapper.clip_gard.max_norm=1", "optim_wrapper.clip_grad.max_norm=1"),
        ("optim_wrapper.optimizer.weight_decy=0", "optim_wrapper.optimizer.weight_decay=0"),
        ("optim_wrapper.paramwise_cfg.norm_decay=0", "paramwise_cfg.norm_decay_mult=0"),
        ("param_scheduler.0.start_facter=1", "param_scheduler.0.start_factor=1"),
        ("default_hooks.checkpont.interval=5", "default_hooks.checkpoint.interval=5"),
        ("default_hooks.logger.intervall=5", "default_hooks.logger.interval=5"),
        # CheckpointHook takes any option, for the backend that writes the file.
        ("default_hooks.checkpoint.intervall=5", "default_hooks.checkpoint.interval=5"),
        ("default_hooks.checkpoint.max_kept_ckpts=1", "default_hooks.checkpoint.max_keep_ckpts=1"),
        ("auto_scale_lr.base_batchsize=5", "auto_scale_lr.base_batch_size=5"),
        ("randomness.sed=5", "randomness.seed=5"),
        ("env_cfg.cudnn_bench=5", "env_cfg.cudnn_benchmark=5"),
        ("log_processor.window=5", "log_processor.window_size=5"),
        ("model.head.cross_weight=0.5", "model.head.cross_scale_loss.loss_weight=0.5"),
        ("train_dataloader.dataset.max_mising=0.5", "dataset.max_missing=0.5"),
    ],
)
def test_unread_setting_is_rejected_with_the_nearest_name(cfg, given, meant):
    cfg.merge_from_dict({"optim_wrapper.paramwise_cfg": {}, "auto_scale_lr": {}, "log_processor": {}})
    before = cfg.to_dict()
    key, value = given.split("=")
    with pytest.raises(ValueError, match=rf"--cfg-options {re.escape(given)}: .*{re.escape(meant)}$"):
        merge_options(cfg, {key: value})
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    "options",
    [
        {"load_from": "x.pth"},
        {"compile": True},
        {"find_unused_parameters": True},
        {"auto_scale_lr.base_batch_size": 64},
        {"custom_hooks": [dict(type="EMAHook")]},
        {"default_hooks.ema.type": "EMAHook", "default_hooks.ema.momentum": 0.1},
        {"default_hooks.ema": dict(type="EMAHook")},
        {"default_hooks.checkpoint.priority": "LOW"},
        {"default_hooks.checkpoint.save_begin": 3},
        {"default_hooks.checkpoint.file_size": 3},
        {"visualizer.vis_backends": [dict(type="LocalVisBackend")]},
        {"model.backbone.init_cfg.type": "Pretrained", "model.backbone.init_cfg.checkpoint": "x"},
        {"model.backbone.norm_cfg.requires_grad": False},
        {"model.backbone.with_cp": True},
        {"model.pyramid.s2.grid": 3},
        {"train_dataloader.prefetch_factor": 4},
        {"train_dataloader.dataset.pipeline.1.type": "Mine"},
        {"optim_wrapper.clip_grad.max_norm": 35},
        {"optim_wrapper.accumulative_counts": 4},
        {"optim_wrapper.paramwise_cfg.norm_decay_mult": 0},
        {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.loss_scale": 512.0},
        {"optim_wrapper.optimizer.type": "SGD", "optim_wrapper.optimizer.momentum": 0.9},
        {"param_scheduler.1.eta_min": 0.1, "param_scheduler.1.end": 9},
        {"train_cfg.val_interval": 5},
        {"randomness.deterministic": True},
        {"log_processor.window_size": 5},
        {"env_cfg.dist_cfg.timeout": 60},
    ],
    ids=lambda options: next(iter(options)),
)
def test_new_setting_that_is_read_is_set(cfg, options):
    merge_options(cfg, options)
    for key, value in options.items():
        node = cfg
        for part in key.split("."):
            node = node[int(part)] if isinstance(node, list) else node[part]
        assert node == value


def test_setting_of_an_inner_dict_is_rejected_where_its_parent_takes_any(cfg):
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    with pytest.raises(ValueError, match=r"has no setting `lr`; use optim_wrapper\.optimizer\.lr=0\.5$"):
        merge_options(cfg, {"optim_wrapper.lr": 0.5})


def test_none_removes_a_hook(cfg):
    merge_options(cfg, {"default_hooks.divergence": None, "default_hooks.logger": "none"})
    assert "divergence" not in cfg.default_hooks
    assert cfg.default_hooks.logger is None  # mmengine skips its own hooks if they are None


def test_variable_of_a_dumped_config_is_not_a_setting(tmp_path):
    (tmp_path / "config.py").write_text("batch = 7\ntrain_dataloader = dict(batch_size=batch)\n")
    Config.fromfile(tmp_path / "config.py").dump(tmp_path / "dumped.py")
    for name in ("config.py", "dumped.py"):
        with pytest.raises(ValueError, match="batch=3: nothing reads `batch`"):
            merge_options(Config.fromfile(tmp_path / name), {"batch": 3})


def test_type_is_not_suggested_for_another_setting(cfg):
    with pytest.raises(ValueError, match=r"has no setting `dtype`; use one of .*clip_grad"):
        merge_options(cfg, {"optim_wrapper.dtype": "bfloat16"})


def test_null_and_none_mean_None(cfg):
    options = {"param_scheduler": "null", "load_from": "None", "val_cfg": "none"}
    merge_options(cfg, {**options, "custom_hooks": ["NULL", "nullify"]})
    assert [cfg[key] for key in options] == [None] * 3
    assert cfg.custom_hooks == [None, "nullify"]


def test_dict_replaces_none(cfg):
    cfg.optim_wrapper.clip_grad = None
    merge_options(cfg, {"optim_wrapper.clip_grad.max_norm": 35, "optim_wrapper.clip_grad.norm_type": 2})
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=35, norm_type=2)


def test_index_beyond_a_list_is_rejected(cfg):
    with pytest.raises(ValueError, match=r"--cfg-options: Index 7 exceeds the length of list"):
        merge_options(cfg, {"param_scheduler.7.end": 1})
    with pytest.raises(ValueError, match=r"--cfg-options: Index 7 exceeds the length of list"):
        merge_options(cfg, {"param_scheduler.7._delete_": True})


def test_entry_of_a_list_is_replaced(cfg):
    cfg.param_scheduler = [dict(type="LinearLR", start_factor=0.5, end=5), dict(type="CosineAnnealingLR", T_max=9)]
    options = {"param_scheduler.0._delete_": True, "param_scheduler.0.type": "MultiStepLR"}
    merge_options(cfg, {**options, "param_scheduler.0.milestones": [3, 4]})
    assert cfg.param_scheduler[0] == dict(type="MultiStepLR", milestones=[3, 4])
    assert cfg.param_scheduler[1] == dict(type="CosineAnnealingLR", T_max=9)


def test_variable_of_the_file_is_not_a_setting(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(f'_base_ = "{SMALL}"\nsize = 8\nmine = dict(a=1)\ntrain_dataloader = dict(batch_size=size)\n')
    cfg = Config.fromfile(path)
    check_names(cfg)
    with pytest.raises(ValueError, match="nothing reads `size` once the config file is loaded"):
        merge_options(cfg, {"size": 4})
    merge_options(cfg, {"mine.a": 2})  # a user's code may read runner.cfg.mine
    assert cfg.mine == dict(a=2)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("optim_wraper", "optim_wrapper"), ("trainer_cfg", "train_cfg"), ("default_hook", "default_hooks")],
)
def test_misspelt_name_in_a_file_is_rejected(tmp_path, wrong, right):
    path = tmp_path / "config.py"
    path.write_text(f'_base_ = "{SMALL}"\n{wrong} = dict(a=1)\n')
    with pytest.raises(ValueError, match=f"config.py: nothing reads `{wrong}`; rename it to `{right}`"):
        check_names(Config.fromfile(path))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[!_]*/**/*.py")), ids=lambda p: p.stem)
def test_shipped_configs_have_no_misspelt_names(path):
    cfg = Config.fromfile(path)
    check_names(cfg)
    merge_options(cfg, {"model.backbone.init_cfg": "none", "train_dataloader.batch_size": 2})


def test_remedy_names_the_nested_setting():
    cfg = Config.fromfile(LABELLED)
    merge_options(cfg, {"model.head.num_classes": 12, "val_dataloader.dataset.image_ids": "x.txt"})
    with pytest.raises(ValueError, match=r"use model\.head\.num_classes=12$"):
        merge_options(cfg, {"num_classes": 12})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim_wrapper.optimizer", ["{'type':'AdamW'", "'lr':0.003}"]),  # as mmengine parses a dict
        ("optim_wrapper.optimizer", "AdamW"),
        ("default_hooks.ema", "{type:'EMAHook'}"),
        ("custom_hooks", ["{type:'EMAHook'}"]),
        ("default_hooks.ema", "{}"),
        ("model", 3),
    ],
)
def test_dict_as_one_value_is_rejected(cfg, key, value):
    before = cfg.to_dict()
    with pytest.raises(ValueError, match=rf"{key}\.NAME=VALUE; {key}\._delete_=True"):
        merge_options(cfg, {key: value})
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.pyramid.s0.area.0._delete_", r"area\.0\._delete_: 0\.\d+ is not a dict"),
        ("custom_hooks.0._delete_", r"custom_hooks\.0: there is no `custom_hooks`"),
        ("param_scheduler.0.type.0._delete_", r"param_scheduler\.0\.type\.0: there is no `0`"),
    ],
)
def test_only_dicts_of_lists_are_removed(cfg, key, message):
    with pytest.raises(ValueError, match=message):
        merge_options(cfg, {key: True})


def test_misspelt_setting_of_a_new_hook_is_named(cfg):
    given = {"default_hooks.probe.type": "ProbeHook", "default_hooks.probe.train": "A", "default_hooks.probe.test": "B"}
    with pytest.raises(ValueError, match=r"max_image=5: ProbeHook has no setting `max_image`; use .*\.max_images=5"):
        merge_options(cfg, {**given, "default_hooks.probe.max_image": 5})


@pytest.mark.parametrize("value", ["{}.pth", "step_{}.pth", "{:03}.pth"])
def test_template_is_not_a_dict(cfg, value):
    merge_options(cfg, {"default_hooks.checkpoint.filename_tmpl": value})
    assert cfg.default_hooks.checkpoint.filename_tmpl == value


def test_new_type_without_the_settings_of_the_earlier_one_is_accepted(cfg):
    cfg.optim_wrapper.optimizer = dict(type="SGD", lr=0.3, momentum=0.9)
    message = r"AdamW has no setting `momentum`.*add optim_wrapper\.optimizer\._delete_=True"
    options = {"optim_wrapper.optimizer.type": "AdamW", "optim_wrapper.optimizer.lr": 0.003}
    with pytest.raises(ValueError, match=message):
        merge_options(Config(cfg.to_dict()), options)
    merge_options(cfg, {**options, "optim_wrapper.optimizer._delete_": True})
    assert cfg.optim_wrapper.optimizer == dict(type="AdamW", lr=0.003)
