"""Recipes of the methods next to SS-PRL: what they state, that they build, and that they train at reduced size."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from project import ROOT
from references.sinkhorn import sinkhorn_reference
from small_contrast import total
from small_recipes import SMALL_BACKBONE, small_run
from torch.nn import functional as F

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.checkpoints import load_pretraining
from sspyr_mm.checkpoints.bounded import UnfilledParameters
from sspyr_mm.engine.cpu import prepare_config
from sspyr_mm.models import MoCoV2

FOLDERS = ("byol", "densecl", "detco", "insloc", "maskco", "mocov2", "swav")
CONFIGS = [path for folder in FOLDERS for path in sorted((ROOT / "configs" / folder).glob("*.py"))]


def load(name):
    return Config.fromfile(ROOT / "configs" / f"{name}.py")


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_header_names_its_command_and_status(path):
    header = path.read_text().split("_base_")[0]
    assert f"configs/{path.parent.name}/{path.name}" in header
    assert "Not reproduced here." in header or "No published counterpart." in header


@pytest.mark.parametrize("folder", FOLDERS)
def test_readme_lists_every_config(folder):
    text = (ROOT / "configs" / "README.md").read_text()
    rows = re.findall(rf"^\| `{folder}/(\S+)`", text, flags=re.M)
    assert sorted(rows) == [path.name for path in CONFIGS if path.parent.name == folder]


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_processes_and_batch_of_the_command_are_those_of_the_learning_rate(path):
    cfg, header = Config.fromfile(path), path.read_text().split("_base_")[0]
    if found := re.search(r"\((\d+) x (\d+) images", header):
        assert int(found[2]) == cfg.train_dataloader.batch_size
        assert int(found[1]) * int(found[2]) == cfg.auto_scale_lr.base_batch_size
    else:
        assert cfg.get("auto_scale_lr") is None


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_model_builds_at_full_size(path):
    init_default_scope("mmpretrain")
    cfg = Config.fromfile(path)
    with UnfilledParameters():
        model = MODELS.build(cfg.model)
        dumped = MODELS.build(Config.fromstring(cfg.pretty_text, ".py").model)
    assert model.views == dumped.views
    assert {n: x.shape for n, x in model.state_dict().items()} == {n: x.shape for n, x in dumped.state_dict().items()}


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_trains_two_iterations_at_reduced_size(path, photographs, tmp_path):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({**small_run(photographs, tmp_path), **SMALL_BACKBONE})
    if "momentum" in cfg.default_hooks:  # with 0.999 and the least learning rate, some weights round to the old ones
        cfg.default_hooks.momentum.momentum = 0.5
    if cfg.model.type in ("DetCo", "InsLoc"):
        cfg.model.neck.in_channels = (8, 16, 32, 64)
    if cfg.model.type == "InsLoc":
        cfg.model.views.main.paste = (20, 70)
    if cfg.model.type == "MaskCo":
        cfg.model.channels = 64
        cfg.model.views.main.overlap = (20, 40)
    if "views" in cfg.model:
        for group in cfg.model.views.values():
            side = 72 if cfg.model.type in ("DenseMoCo", "InsLoc", "MaskCo") else 24
            group.update(region=side * group.get("grid", 1), patch=side)
    else:
        cfg.model.pyramid.s0.update(region=24, patch=24)
        cfg.model.pyramid.s0.multi_crop.patch = 24  # see test_ssprl_configs.py
    cfg.param_scheduler = []  # a warm-up may be longer than this run
    if cfg.optim_wrapper.optimizer.type == "ForeachLARS":
        cfg.optim_wrapper.optimizer.lr = 100.0  # at the recipe's, some weights would round to the old ones
    prepare_config(cfg)
    runner = Runner.from_cfg(cfg)
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.state_dict()
    held = {k for k in before if k.startswith("head.prototypes")} if "freeze_prototypes" in cfg.default_hooks else set()
    unmoved = {k for k in before if "num_batches" not in k and torch.equal(after[k].float(), before[k].float())}
    held |= {k for k in unmoved if k.endswith(("mlp.0.bias", "predictor.0.bias"))}  # no gradient: norm follows
    queues = {k for k in unmoved if k.startswith("head.queues") and "swav" in str(path)}  # they start at an epoch
    assert unmoved <= held | queues
    if isinstance(runner.model, MoCoV2):
        assert all(q.num_pushed == 8 for q in runner.model.head.queues.values())
    assert (tmp_path / "epoch_1.pth").is_file()


def test_mocov2_states_the_numbers_of_its_authors():
    cfg = load("mocov2/r50_coco_200e")
    assert cfg.model.head.queue_length == 65536 and cfg.model.head.temperature == 0.2
    assert cfg.default_hooks.momentum.momentum == 0.999
    assert cfg.model.backbone.norm_cfg == dict(type="GroupedBN", group_size=32)
    assert cfg.model.backbone.zero_init_residual is False
    augment = MODELS.build(cfg.model).data_preprocessor.config
    assert (augment.flip_prob, augment.jitter_prob, augment.gray_prob, augment.blur_prob) == (0.5, 0.8, 0.2, 0.5)
    assert (augment.jitter, augment.blur_sigma) == ((0.4, 0.4, 0.4, 0.1), (0.1, 2.0))
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.15, momentum=0.9, weight_decay=1e-4)
    assert "paramwise_cfg" not in cfg.optim_wrapper  # decay on biases and norm layers, too
    imagenet = load("mocov2/r50_in1k_100e")
    assert (imagenet.optim_wrapper.optimizer.lr, imagenet.auto_scale_lr.base_batch_size) == (0.03, 256)


def test_densecl_states_the_numbers_of_its_authors():
    cfg = load("densecl/r50_coco_200e")
    head = MODELS.build(cfg.model).head
    assert {name: tuple(term) for name, term in head.terms.items()} == {
        "main": ("main", "main", "main", 0.5),
        "dense": ("dense", "matched", "dense", 0.5),
    }
    assert {name: queue.length for name, queue in head.queues.items()} == {"main": 65536, "dense": 65536}
    assert head.temperature == 0.2 and cfg.optim_wrapper.optimizer.lr == 0.3 * 128 / 256
    assert load("densecl/r50_in1k_100e").optim_wrapper.optimizer.lr == 0.03


def test_detco_states_the_numbers_of_its_authors():
    cfg = load("detco/r50_coco_200e")
    model = MODELS.build(cfg.model)
    weights = {name: term.weight for name, term in model.head.terms.items()}
    for kind in ("image", "patch", "across"):
        assert [weights[f"{kind}{level}"] for level in (2, 3, 4, 5)] == [0.1, 0.4, 0.7, 1.0]
    assert model.head.terms["across3"] == ("l1", "g1", "g1", 0.4)
    assert sorted(model.head.queues) == sorted(f"{kind}{i}" for kind in "gl" for i in range(4))
    assert {q.length for q in model.head.queues.values()} == {65536}
    jigsaw = model.views.groups[0]
    assert (jigsaw.region, jigsaw.cell, jigsaw.patch, jigsaw.area, jigsaw.jigsaw) == (255, 85, 64, (0.6, 1), True)
    counts = [sum(p.numel() for p in mlps.parameters()) for mlps in (model.neck.global_mlps, model.neck.local_mlps)]
    assert [round(count / 1e6, 1) for count in counts] == [8.9, 71.8]
    assert cfg.optim_wrapper.optimizer.lr == 0.015


def test_insloc_states_the_numbers_of_its_authors():
    cfg = load("insloc/r50_coco_200e")
    model = MODELS.build(cfg.model)
    (group,) = model.views.groups
    assert (group.region, group.area, group.aspect, group.paste) == (256, (0.2, 1), (0.5, 2), (128, 254))
    assert {name: (q.length, model.head.terms[name].weight) for name, q in model.head.queues.items()} == {
        f"p{i}": (65536, 1) for i in range(4)
    }
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.neck.fpn, model.neck.head)]
    assert [round(count / 1e6, 1) for count in counts] == [3.3, 16.4]
    assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.nesterov) == (0.015, True)


def test_maskco_is_marked_as_a_reconstruction():
    for name in ("r50_coco_200e", "r50_in1k_100e", "r18_small"):
        header = (ROOT / f"configs/maskco/{name}.py").read_text().split("_base_")[0]
        assert "Reconstruction from the abstract and figure 3; the authors published no code." in header
    cfg = load("maskco/r50_coco_200e")
    assert cfg.model.views.main.overlap == (64, 128) and cfg.model.channels == 2048


def test_byol_states_the_numbers_of_its_authors():
    cfg = load("byol/r50_coco_200e")
    model = MODELS.build(cfg.model)
    first, second = model.views.groups[0].augment_of(model.data_preprocessor.config)
    assert (first.blur_prob, first.solarize_prob, second.blur_prob, second.solarize_prob) == (1, 0, 0.1, 0.2)
    assert first.jitter == second.jitter == (0.4, 0.4, 0.2, 0.1) and model.views.groups[0].area == (0.08, 1)
    shapes = [(layer.in_features, layer.out_features, layer.bias is not None) for layer in model.neck.mlp[::3]]
    assert shapes == [(2048, 4096, True), (4096, 256, False)]
    shapes = [(layer.in_features, layer.out_features, layer.bias is not None) for layer in model.head.predictor[::3]]
    assert shapes == [(256, 4096, True), (4096, 256, False)]
    assert (cfg.default_hooks.momentum.momentum, cfg.default_hooks.momentum.end) == (0.996, 1)
    assert cfg.optim_wrapper.optimizer.lr == 0.2 * 128 / 256 and cfg.optim_wrapper.optimizer.weight_decay == 1.5e-6
    imagenet = load("byol/r50_in1k_100e")
    assert (imagenet.optim_wrapper.optimizer.lr, imagenet.default_hooks.momentum.momentum) == (0.45, 0.99)


def test_swav_states_the_numbers_of_its_authors():
    cfg = load("swav/r50_coco_200e")
    (scale,) = (MODELS.build(cfg.model).pyramid).scales
    assert (scale.num_prototypes, scale.area, scale.region) == (3000, (0.14, 1.0), 224)
    assert (scale.multi_crop.num_views, scale.multi_crop.patch, scale.multi_crop.area) == (6, 96, (0.05, 0.14))
    assert scale.queue_length == 1920 and cfg.default_hooks.queue.start_epoch == 15
    assert cfg.default_hooks.freeze_prototypes.num_iters == 646 == 82783 // 128
    assert cfg.optim_wrapper.optimizer.lr == 0.6 and cfg.param_scheduler[0].eta_min_ratio == 0.001
    assert cfg.model.data_preprocessor.std[0] == 0.228 * 255
    imagenet = load("swav/r50_in1k_100e")
    assert imagenet.default_hooks.freeze_prototypes.num_iters == 5004 == 1281167 // 256
    assert imagenet.model.pyramid.s0.queue_length == 15 * 256


def test_swav_loss_equals_its_formula():
    """1/2 sum_i 1/7 sum_{v != i} - mean_b sum_k Q_i log softmax(z_v C^T / .1), and nothing else."""
    init_default_scope("mmpretrain")
    cfg = load("swav/r50_coco_200e_k300")
    cfg.merge_from_dict({"model.pyramid.s0.num_prototypes": 9, "model.neck.out_channels": 8, **SMALL_BACKBONE})
    torch.manual_seed(0)
    head = MODELS.build(cfg.model).head
    head.use_queues(False)
    z = {"s0": F.normalize(torch.randn(2, 12, 1, 8), dim=-1), "s0_crops": F.normalize(torch.randn(6, 12, 1, 8), dim=-1)}
    losses = head.loss(z)
    views = torch.cat([z["s0"], z["s0_crops"]])[:, :, 0].double()
    weight = head.prototypes["s0"].weight.detach().double()
    expected = 0.0
    for i in range(2):
        codes = torch.from_numpy(sinkhorn_reference((views[i] @ weight.T).numpy(), 0.05, 3))
        others = [(views[v] @ weight.T / 0.1).log_softmax(1) for v in range(8) if v != i]
        expected += sum(-(codes * log_p).sum(1).mean().item() for log_p in others) / 7 / 2
    assert total(losses).item() == pytest.approx(expected, rel=1e-5)
    assert [name for name in losses if name.startswith("loss")] == ["loss_pyr_s0"]


def test_own_method_of_the_readme_trains(photographs, tmp_path, monkeypatch):
    """The code and the config as they are printed, in files of their own."""
    code, config = re.findall(r"```python\n(.*?)```", (ROOT / "configs/README.md").read_text(), flags=re.S)[-2:]
    (tmp_path / "two_views.py").write_text(code)
    (tmp_path / "config.py").write_text(config.replace("../_base_", str(ROOT / "configs/_base_")))
    monkeypatch.syspath_prepend(tmp_path)
    cfg = Config.fromfile(tmp_path / "config.py")
    cfg.merge_from_dict(small_run(photographs, tmp_path / "work"))
    prepare_config(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2 and 0 < float(runner.message_hub.get_scalar("train/loss_main").current()) < 10
    _, model = load_pretraining(tmp_path / "work/epoch_1.pth")
    assert type(model).__name__ == "TwoViews"
