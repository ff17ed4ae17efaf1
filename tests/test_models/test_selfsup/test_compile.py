"""A compiled backbone: one graph for each size of patches, none more later, and the same step."""

import copy
import pickle
from dataclasses import replace

import pytest
import small_contrast
import torch
from mmpretrain.models.backbones.resnet import BasicBlock
from small_augment import PAPER, SPEC, batch_of
from small_step import BACKBONES, build, step
from torch import nn
from torch._dynamo.utils import counters

from sspyr_mm.models import PyramidAugment
from sspyr_mm.models.data_preprocessors.augment_params import draw_params


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(backbone, backend, **arguments):
    plain = build(backbone, None)
    model = build(backbone, arguments.get("recompute"))
    model.backbone.compile(backend=backend, dynamic=False)
    assert model.state_dict().keys() == plain.state_dict().keys()
    return model, plain


SLOW = [("resnet", None), ("convnext", "scale"), ("swin", None)]  # the same code with other operators


@pytest.mark.parametrize(
    ("backbone", "recompute"),
    [("resnet", "scale"), ("convnext", None), *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)],
)
def test_no_graph_breaks_and_no_compilation_in_later_steps(backbone, recompute):
    model, plain = compiled(backbone, "aot_eager", recompute=recompute)
    assert torch.equal(step(model), step(plain))
    graphs = counters["stats"]["unique_graphs"]
    # Computed again, batch norm leaves its averages alone: another graph.
    again = 2 if recompute and "BatchNorm" in str(model.backbone) else 1
    assert graphs == again * len(model.pyramid.groups)
    for _ in range(2):
        assert torch.equal(step(model), step(plain))
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]


@pytest.mark.parametrize(("name", "graphs"), [("MoCoV2", 1), pytest.param("DetCo", 2, marks=pytest.mark.slow)])
def test_grouped_batch_norm_is_part_of_one_graph_per_size_of_patches(name, graphs):
    plain, model = small_contrast.build(name), small_contrast.build(name)
    model.backbone.compile(backend="aot_eager", dynamic=False)
    for number in range(2):
        inputs = small_contrast.batch_of(number, 8, model)
        totals = []
        for one in (plain, model):
            loss = small_contrast.total(one.loss(inputs))
            loss.backward()
            one.finish_step(0.9)
            totals.append(loss)
        assert torch.equal(*totals)
        assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    assert all(torch.equal(x, model.state_dict()[n]) for n, x in plain.state_dict().items())


@pytest.mark.slow
def test_compiled_kernels_compute_the_same_step():
    model, plain = compiled("resnet", "inductor")
    for module in (*model.modules(), *plain.modules()):
        if isinstance(module, BasicBlock):
            nn.init.ones_(module.norm2.weight)  # 0 at first: what is before it would get no gradient
    for _ in range(2):
        torch.testing.assert_close(step(model), step(plain), rtol=1e-4, atol=1e-4)
    wanted = {name: parameter.grad for name, parameter in plain.named_parameters()}
    # Where batch norm follows a bias its gradient is nought, and rounding is all there is.
    least = 1e-4 * torch.cat([grad.flatten() for grad in wanted.values()]).norm()
    for name, parameter in model.named_parameters():
        apart = (parameter.grad - wanted[name]).norm() / wanted[name].norm().clamp(min=least)
        assert apart < 1e-3, name


def test_config_enables_compilation(monkeypatch):
    from sspyr_mm.models import SSPRL

    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: calls.append((self, how)))
    config, channels = BACKBONES["resnet"]
    pyramid = dict(s0=dict(region=48, patch=48, num_prototypes=6, alpha=1.0))
    neck = dict(type="PyramidProjector", in_channels=channels, hid_channels=16, out_channels=8)
    head = dict(type="SSPRLHead")
    model = SSPRL(pyramid, dict(config), neck, head, compile_backbone=True)
    assert calls == [(model.backbone, dict(dynamic=False))]
    with pytest.raises(ValueError, match="compile_backbone=True does not support recompute='stage'"):
        SSPRL(pyramid, dict(config), neck, head, compile_backbone=True, recompute="stage")


@pytest.mark.slow
def test_a_compiled_augmentation_has_one_kernel_of_each_operation_for_all_sizes():
    """`fullgraph` refuses graph breaks; numbers of patches differ from step to step, sizes from scale to scale."""
    plain, module = PyramidAugment(SPEC), PyramidAugment(SPEC, compiled=True)
    config = replace(PAPER, solarize_prob=0.2)

    def apart(seeds):
        inputs, params = batch_of(seeds)["inputs"], draw_params(seeds, SPEC.groups, config)
        wanted = plain.augment_in_batches(inputs, params)
        found = module.augment_in_batches(inputs, params)
        return max(float((found[name] - wanted[name]).abs().max()) for name in wanted)

    assert apart(range(64)) < 1e-4
    # Had an operation met one patch, or as many as channels, it would be compiled once more for others.
    assert counters["stats"]["unique_graphs"] == len(module.operations) == 7
    for epoch in range(1, 4):
        assert apart(range(100 * epoch, 100 * epoch + 64)) < 1e-4
    assert counters["stats"]["unique_graphs"] == 7
    assert not counters["graph_break"]


def test_a_compiled_augmentation_can_be_pickled():
    module = PyramidAugment(SPEC, compiled=True)
    assert set(module.operations) == set(PyramidAugment(SPEC).operations)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert copied.compiled and torch.equal(copied.mean, module.mean)
