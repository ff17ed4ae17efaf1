"""Augmentation on the device, against torchvision's operations at the same parameters."""

import math
import re

import numpy as np
import pytest
import torch
from small_augment import PAPER, PYRAMID, SPEC, batch_of, regions
from torch import nn
from torchvision.transforms import functional as tv

from sspyr_mm.models.data_preprocessors import photometric
from sspyr_mm.models.data_preprocessors.augment_params import PatchParams, draw_params
from sspyr_mm.models.data_preprocessors.pyramid_augment import PyramidAugment, cut_patches, list_pixels, move_together

PLAIN = dict(mean=(0, 0, 0), std=(255, 255, 255))
LEVEL = 1 / 255


def patches(num=6, height=24, width=24, seed=0):
    """Noise with saturated, grey, black and white patches among it."""
    x = torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(seed))
    x[1, :, : height // 2] = x[1, :1, : height // 2]  # grey: no hue
    x[2] = (x[2] > 0.5).float()  # pure colours: ties of the largest channel
    x[3, :, :4] = 0
    x[3, :, 4:8] = 1
    return x


CPU = torch.device("cpu")


def cut(inputs, group, params):
    """Patches before colours."""
    regions = inputs[group.name]
    return cut_patches(regions, move_together(list_pixels(len(regions), group, params), CPU))


def colour(patches, params):
    """Colours and blur in batches."""
    steps = move_together(photometric.list_steps(params), CPU)
    return photometric.augment(patches, steps, photometric.operations(params.max_sigma))


# ---- one operation at a time

FACTORS = torch.tensor([0.0, 0.2, 0.7, 1.0, 1.3, 1.8])
SHIFTS = torch.tensor([-0.5, -0.2, -0.01, 0.0, 0.13, 0.5])
OPS = {
    "brightness": (photometric.adjust_brightness, tv.adjust_brightness, FACTORS),
    "contrast": (photometric.adjust_contrast, tv.adjust_contrast, FACTORS),
    "saturation": (photometric.adjust_saturation, tv.adjust_saturation, FACTORS),
    "hue": (photometric.adjust_hue, tv.adjust_hue, SHIFTS),
}


@pytest.mark.parametrize("op", OPS)
def test_colour_operation_equals_torchvisions(op):
    ours, theirs, values = OPS[op]
    for shuffled in (values, values.flip(0), values.roll(2)):
        x = patches()
        before = x.clone()
        got = ours(x, shuffled.view(-1, 1, 1, 1))
        expected = torch.stack([theirs(p, float(v)) for p, v in zip(before, shuffled, strict=True)])
        assert (got - expected).abs().max() <= LEVEL
        assert (got - expected).abs().mean() < 1e-5
        torch.testing.assert_close(x, before, rtol=0, atol=0)  # inputs stay


def test_hue_by_the_definition():
    """Independent of torchvision: colorsys, a third of a turn moves red to green to blue."""
    red, green, blue = torch.eye(3).view(3, 1, 3, 1, 1)
    third = torch.full((1, 1, 1, 1), 1 / 3)
    torch.testing.assert_close(photometric.adjust_hue(red, third), green)
    torch.testing.assert_close(photometric.adjust_hue(green, third), blue)
    torch.testing.assert_close(photometric.adjust_hue(blue, third), red)
    torch.testing.assert_close(photometric.adjust_hue(red, -third), blue)


def test_gray_equals_torchvisions():
    x = patches()
    expected = tv.rgb_to_grayscale(x)
    torch.testing.assert_close(photometric.to_gray(x), expected, rtol=0, atol=1e-6)


def test_the_operation_named_first_is_done_first():
    """Brightness 0 first makes all that follows black; saturation 0 last keeps brightness."""
    one = dict(offset_y=np.zeros(2, np.int64), offset_x=np.zeros(2, np.int64))
    off = np.zeros(2, bool)
    factors = np.array([[2, 1, 0, 0]] * 2, np.float32)
    order = np.array([[0, 2, 1, 3], [2, 0, 1, 3]])
    params = PatchParams(**one, flip=off, jitter=~off, factors=factors, order=order, gray=off,
                         blur=off, solarize=off, sigma=np.ones(2, np.float32), max_sigma=1.0)  # fmt: skip
    reddish = torch.tensor([0.8, 0.1, 0.1]).view(1, 3, 1, 1).expand(2, 3, 8, 8).clone()
    got = colour(reddish, params)[:, 0, 0, 0].tolist()
    # First: red clamps to 1, then grey of (1, .2, .2). Second: grey of (.8, .1, .1), doubled.
    assert got == pytest.approx([0.2989 * 1 + 0.701 * 0.2, 2 * (0.2989 * 0.8 + 0.701 * 0.1)], abs=2e-3)


@pytest.mark.parametrize("size", [(24, 24), (13, 31), (7, 7)])
def test_blur_equals_torchvisions(size):
    sigmas = torch.tensor([0.1, 0.3, 0.8, 1.2, 1.7, 2.0])
    radius = math.ceil(3 * 2.0)
    x = patches(height=size[0], width=size[1])
    got = photometric.gaussian_blur(x, sigmas.view(-1, 1, 1, 1), radius=radius)
    for patch, blurred, sigma in zip(x, got, sigmas, strict=True):
        expected = tv.gaussian_blur(patch, [2 * radius + 1] * 2, [float(sigma)] * 2)
        assert (blurred - expected).abs().max() < 1e-5


# ---- whole chains


def reference_chain(patch, params, n):
    """torchvision's functional operations in the patch's own order, as a PIL pipeline would run them."""
    steps = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    if params.jitter[n]:
        for op in params.order[n]:
            patch = steps[op](patch, float(params.factors[n, op]))
    if params.gray[n]:
        patch = tv.rgb_to_grayscale(patch, num_output_channels=3)
    if params.blur[n]:
        kernel = 2 * math.ceil(3 * params.max_sigma) + 1
        patch = tv.gaussian_blur(patch, [kernel] * 2, [float(params.sigma[n])] * 2)
    return patch


def test_whole_chains_equal_torchvisions_at_each_patchs_parameters():
    inputs = regions(8)
    params = draw_params(range(8), SPEC.groups, PAPER)
    orders, kinds = set(), set()
    for group in SPEC.groups:
        p = params[group.name]
        patches = cut(inputs, group, p)
        expected = [reference_chain(patch, p, n) for n, patch in enumerate(patches.clone())]
        got = colour(patches, p)
        assert (got - torch.stack(expected)).abs().max() <= LEVEL
        orders |= {tuple(order) for order, used in zip(p.order, p.jitter, strict=True) if used}
        kinds |= set(zip(p.jitter.tolist(), p.gray.tolist(), p.blur.tolist(), strict=True))
    assert len(orders) > 18 and len(kinds) == 8


def test_the_module_equals_torchvision_from_regions_to_normalised_patches():
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    module = PyramidAugment(PYRAMID, mean=mean, std=std)
    seeds = [11, 2**62, 5]
    batch = batch_of(seeds)
    output = module(batch, training=True)
    assert output["data_samples"] == ["kept"]
    assert list(output["inputs"]) == ["s0", "s0_crops", "s1", "s2"]
    drawn = draw_params(seeds, SPEC.groups, PAPER)
    for group in SPEC.groups:
        got, p = output["inputs"][group.name], drawn[group.name]
        shape = (group.num_views, len(seeds), group.num_patches)
        assert got.shape == (*shape, 3, group.patch, group.patch) and got.dtype == torch.float32
        for n, (v, b, m) in enumerate(np.ndindex(shape)):
            region = batch["inputs"][group.name][b, v if group.num_regions > 1 else 0]
            top = m // group.grid * group.cell + int(p.offset_y[n])
            left = m % group.grid * group.cell + int(p.offset_x[n])
            patch = region.permute(2, 0, 1).float() / 255
            patch = tv.crop(patch, top, left, group.patch, group.patch)
            patch = tv.hflip(patch) if p.flip[n] else patch
            patch = reference_chain(patch, p, n)
            expected = tv.normalize(patch, [x / 255 for x in mean], [x / 255 for x in std])
            assert (got[v, b, m] - expected).abs().max() <= LEVEL / min(x / 255 for x in std)


def test_the_batches_of_a_device_are_the_patches_of_a_cpu():
    """Two ways, one for devices and one for CPUs: the same crops and flips, colours and blur to a rounding."""
    module, seeds = PyramidAugment(SPEC), list(range(40))
    batch = batch_of(seeds)
    found = module(batch)["inputs"]
    params = draw_params(seeds, SPEC.groups, module.config)
    wanted = module.augment_in_batches(batch["inputs"], params)
    for name in found:
        assert (found[name] - wanted[name]).abs().max() < 5e-5 / 0.22, name


def test_parameters_reach_the_device_in_two_copies(monkeypatch):
    module, seeds = PyramidAugment(SPEC), list(range(4))
    batch, params = batch_of(seeds), draw_params(seeds, SPEC.groups, module.config)
    moved, to = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: (moved.append(a), to(self, *a, **k))[1])
    module.augment_in_batches(batch["inputs"], params)
    assert sum(isinstance(a[0], torch.device) for a in moved) == 2


def test_arrays_that_move_together_keep_their_places():
    rng = np.random.default_rng(0)
    tree = {
        "a": (rng.integers(0, 9, (3, 1, 2)), rng.random(4, dtype=np.float32)),
        "b": [photometric.Step("hue", rng.integers(0, 9, 5), rng.random((2, 3), dtype=np.float32))],
    }
    found = move_together(tree, CPU)
    assert found["b"][0].name == "hue"
    for wanted, got in [
        (tree["a"][0], found["a"][0]),
        (tree["a"][1], found["a"][1]),
        (tree["b"][0].rows, found["b"][0].rows),
        (tree["b"][0].values, found["b"][0].values),
    ]:
        np.testing.assert_array_equal(got.numpy(), wanted)
        assert got.numpy().dtype == wanted.dtype


def test_crops_and_flips_are_exact():
    module = PyramidAugment(PYRAMID, **PLAIN, jitter_prob=0, gray_prob=0, blur_prob=0)
    seeds = [7, 8, 9]
    batch = batch_of(seeds)
    drawn = draw_params(seeds, SPEC.groups, module.config)
    for group in SPEC.groups:
        got, p = module(batch)["inputs"][group.name], drawn[group.name]
        offsets = set()
        for n, (v, b, m) in enumerate(np.ndindex(group.num_views, len(seeds), group.num_patches)):
            region = batch["inputs"][group.name][b, v % group.num_regions].numpy()
            row, column = divmod(m, group.grid)
            cell = region[row * group.cell :, column * group.cell :][: group.cell, : group.cell]
            y, x = int(p.offset_y[n]), int(p.offset_x[n])
            patch = cell[y : y + group.patch, x : x + group.patch]
            assert patch.shape == (group.patch, group.patch, 3)  # the crop lies within its cell
            patch = patch[:, ::-1] if p.flip[n] else patch
            pixels = (got[v, b, m] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(pixels, patch)
            offsets.add((y, x))
        assert len(offsets) == 1 if group.cell == group.patch else len(offsets) > 3


# ---- what patches depend on


def test_patches_of_an_image_do_not_depend_on_its_batch():
    module = PyramidAugment(PYRAMID)
    seeds = [5, 17, 2**62 + 3, 9]
    batch = batch_of(seeds)
    together = module(batch)["inputs"]
    for chosen in ([2], [3, 1], [0, 3, 2]):
        part = {name: value[chosen] for name, value in batch["inputs"].items()}
        alone = module(dict(inputs=part))["inputs"]
        for name, value in alone.items():
            # Which rows a batched operation takes may change how it rounds, nothing more.
            torch.testing.assert_close(value, together[name][:, chosen], rtol=0, atol=1e-5)


def test_patches_depend_only_on_the_seed():
    module = PyramidAugment(PYRAMID)
    torch.manual_seed(0)
    np.random.seed(0)
    first = module(batch_of([1, 2]))["inputs"]
    torch.manual_seed(1)
    np.random.seed(1)
    state = torch.get_rng_state()
    second = module(batch_of([1, 2]))["inputs"]
    assert torch.equal(torch.get_rng_state(), state)
    other = module(batch_of([1, 3]))["inputs"]
    for name in first:
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name][:, 0], other[name][:, 0])
        assert not torch.allclose(first[name][:, 1], other[name][:, 1])


def test_regions_are_not_changed():
    batch = batch_of([1, 2])
    before = {name: value.clone() for name, value in batch["inputs"].items()}
    PyramidAugment(PYRAMID)(batch)
    assert all(torch.equal(batch["inputs"][name], value) for name, value in before.items())


def test_autocast_does_not_reach_the_colours():
    module = PyramidAugment(PYRAMID)
    plain = module(batch_of([1, 2]))["inputs"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = module(batch_of([1, 2]))["inputs"]
    for name, value in plain.items():
        assert under[name].dtype == torch.float32
        assert torch.equal(under[name], value)


def test_no_graph_is_kept():
    module = PyramidAugment(PYRAMID)
    assert not any(x.requires_grad for x in module(batch_of([1]))["inputs"].values())


# ---- the rest of the contract


def test_plain_tensor_is_only_normalised():
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    expected = (images.double() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    output = PyramidAugment(PYRAMID, mean=mean, std=std)(dict(inputs=images, data_samples=["a", "b"]))
    torch.testing.assert_close(output["inputs"].double(), expected, rtol=1e-5, atol=1e-4)
    assert output["data_samples"] == ["a", "b"]
    assert PyramidAugment(PYRAMID)(dict(inputs=images))["data_samples"] is None


def test_augmentation_has_no_state_or_parameters():
    assert not PyramidAugment(PYRAMID).state_dict()
    assert not list(nn.Module.parameters(PyramidAugment(PYRAMID)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(flip_prob=1.5), "flip_prob must be in [0, 1], got 1.5"),
        (dict(jitter_prob=-0.1), "jitter_prob must be in [0, 1], got -0.1"),
        (dict(gray_prob=float("nan")), "gray_prob must be in [0, 1], got nan"),
        (dict(blur_prob=2), "blur_prob must be in [0, 1], got 2"),
        (
            dict(jitter=(0.8, 0.8, 0.8)),
            "jitter must be four strengths >= 0 (brightness, contrast, saturation, hue <= 0.5), got"
            " (0.8, 0.8, 0.8); the paper's are (0.8, 0.8, 0.8, 0.2)",
        ),
        (dict(jitter=(0.8, -0.8, 0.8, 0.2)), "jitter must be four strengths >= 0"),
        (dict(jitter=(0.8, 0.8, 0.8, 0.6)), "jitter must be four strengths >= 0"),
        (dict(blur_sigma=(0, 2)), "blur_sigma must be (low, high) with 0 < low <= high, got (0, 2)"),
        (dict(blur_sigma=(2, 1)), "blur_sigma must be (low, high) with 0 < low <= high, got (2, 1)"),
        (dict(blur_sigma=(1,)), "blur_sigma must be (low, high) with 0 < low <= high, got (1,)"),
    ],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidAugment(PYRAMID, **arguments)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_patches():
    batch = batch_of([1, 2, 3])
    module = PyramidAugment(PYRAMID)
    expected = module(batch)["inputs"]
    got = module.cuda()(batch)["inputs"]
    for name, value in expected.items():
        assert got[name].is_cuda
        assert (got[name].cpu() - value).abs().max() <= LEVEL / 0.22
