"""Views of methods without a pyramid: derived values, rejected configs, distributions per view."""

import hashlib
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from small_augment import PAPER, SPEC
from torchvision.transforms import functional as vision

from sspyr_mm.models import PyramidAugment
from sspyr_mm.models.data_preprocessors.augment_params import draw_params
from sspyr_mm.models.data_preprocessors.photometric import list_steps, operations, solarize
from sspyr_mm.models.data_preprocessors.photometric_cpu import augment_patch
from sspyr_mm.pyramid import views_of
from sspyr_mm.views import AugmentSpec, ViewsSpec

MAIN = dict(region=24, patch=24)
BYOL = [dict(blur_prob=1.0), dict(blur_prob=0.1, solarize_prob=0.2)]


def spec_of(**fields):
    return ViewsSpec.from_config(dict(main={**MAIN, **fields}))


def test_defaults_and_derived_values():
    (group,) = spec_of().groups
    assert (group.name, group.num_views, group.num_regions, group.num_patches) == ("main", 2, 2, 1)
    assert (group.area, group.aspect) == ((0.2, 1.0), (3 / 4, 4 / 3))
    (jigsaw,) = spec_of(grid=3, patch=6, shared_region=True).groups
    assert (jigsaw.cell, jigsaw.num_patches, jigsaw.num_regions) == (8, 9, 1)


def test_dumped_config_gives_the_same_spec(tmp_path):
    views = dict(whole={**MAIN, "augment": BYOL}, small=dict(region=8, patch=8, num_views=6, area=(0.05, 0.2)))
    before = ViewsSpec.from_config(views)
    for suffix in ("py", "json"):
        Config(dict(model=dict(views=views))).dump(tmp_path / f"dumped.{suffix}")
        loaded = Config.fromfile(tmp_path / f"dumped.{suffix}").model
        assert ViewsSpec.from_config(loaded.views) == before
        assert views_of(loaded) == before
    assert [g.name for g in before.groups] == ["small", "whole"]
    assert [g.name for g in ViewsSpec.from_config({**views, "small": None}).groups] == ["whole"]
    assert ViewsSpec.from_config(dict(a=MAIN, main={**MAIN, "patch": 20})).main.patch == 20
    assert before.main.name == "small" and SPEC.views.main.name == "s0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(patch=25), "views.main: a patch of 25 px does not fit its cell of 24 px"),
        (dict(num_views=0), "views.main.num_views must be an integer >= 1, got 0"),
        (dict(area=(0, 1)), "views.main.area must be (low, high)"),
        (dict(shared_region=1), "views.main.shared_region must be True or False, got 1"),
        (dict(views=2), "views.main has unknown fields ['views']: allowed are ['area'"),
        (dict(augment=[{}] * 3), "views.main.augment must be one dict for all views or one for each of the 2, got 3"),
        (dict(augment=dict(blur=1)), "views.main.augment has unknown fields ['blur']: allowed are ['blur_prob'"),
    ],
)
def test_invalid_views_are_rejected(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        spec_of(**fields)


@pytest.mark.parametrize(
    "views", [3, dict(main=3), dict(main=dict(**MAIN, augment=[1, 2])), dict(main=dict(**MAIN, augment=3))]
)
def test_values_of_another_type_are_rejected(views):
    with pytest.raises(TypeError, match=r"must (be a dict|hold dicts)"):
        ViewsSpec.from_config(views)


def test_a_model_without_pyramid_and_views_is_rejected():
    with pytest.raises(ValueError, match=r"has a pyramid or views, but this one only has \['type'\]"):
        views_of(dict(type="SSPRL"))
    with pytest.raises(ValueError, match="views has no group"):
        ViewsSpec.from_config(dict(main=None))
    with pytest.raises(ValueError, match="needs either pyramid or views"):
        PyramidAugment()


def test_every_view_has_its_own_distributions():
    """BYOL's: blur in every patch of view 0 and a tenth of view 1's, solarisation in a fifth of view 1's."""
    (group,) = spec_of(augment=BYOL).groups
    seeds = list(range(3000))
    params = draw_params(seeds, [group], PAPER)["main"]
    first, second = (slice(0, 3000), slice(3000, 6000))
    assert params.blur[first].all() and not params.solarize[first].any()
    assert params.blur[second].mean() == pytest.approx(0.1, abs=0.02)
    assert params.solarize[second].mean() == pytest.approx(0.2, abs=0.025)
    # Everything else equals the parameters without changes: solarisation has a stream of its own.
    plain = draw_params(seeds, spec_of().groups, PAPER)["main"]
    for name in ("offset_y", "offset_x", "flip", "jitter", "factors", "order", "gray", "sigma"):
        np.testing.assert_array_equal(getattr(params, name), getattr(plain, name))
    together = np.corrcoef(params.solarize[second], params.gray[second])[0, 1]
    assert abs(together) < 4 / np.sqrt(3000)


def test_one_dict_changes_all_views():
    (group,) = spec_of(augment=dict(gray_prob=1.0, jitter=[0, 0, 0, 0])).groups
    params = draw_params(range(10), [group], PAPER)["main"]
    assert params.gray.all() and (params.factors[:, :3] == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(solarize_prob=1.5), "solarize_prob must be in [0, 1], got 1.5"),
        (dict(blur_prob="0.5"), "blur_prob must be in [0, 1], got '0.5'"),
        (dict(jitter=0.4), "jitter must be several numbers, got 0.4"),
        (dict(blur_sigma=(1.0, "2")), "blur_sigma must be several numbers, got (1.0, '2')"),
    ],
)
def test_invalid_distribution_of_a_view_is_rejected(change, message):
    views = dict(main=dict(**MAIN, augment=[{}, change]))
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidAugment(views=views)


def test_parameters_of_a_pyramid_have_not_changed():
    """The views of runs from before views had a specification of their own stay the same, bit by bit."""
    digest = hashlib.sha256()
    for name, params in draw_params([0, 7, 2**62], SPEC.groups, PAPER).items():
        digest.update(name.encode())
        for field in ("offset_y", "offset_x", "flip", "jitter", "factors", "order", "gray", "blur", "sigma"):
            digest.update(np.ascontiguousarray(getattr(params, field)).tobytes())
        assert not params.solarize.any()
    assert digest.hexdigest() == "f24b4aa906c2848546bb645683d6b14eca8d62e1c93029d3540a4b83293d1ef9"


def test_solarisation_equals_torchvisions():
    patches = torch.rand(4, 3, 5, 6)
    patches[0, 0, 0, :3] = torch.tensor([0.5, 0.0, 1.0])
    torch.testing.assert_close(solarize(patches, torch.ones(4)), vision.solarize(patches, 0.5), rtol=0, atol=0)


def test_solarisation_comes_last_and_is_the_same_on_cpu_and_in_batches():
    """A bright patch, blurred and solarised: blur sees the values before solarisation."""
    config = AugmentSpec(0, 0, (0, 0, 0, 0), 0, 1, (1.0, 1.0), solarize_prob=1)
    (group,) = spec_of().groups
    params = draw_params([3], [group], config)["main"]
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    steps = list_steps(params)
    assert [step.name for step in steps] == ["blur", "solarize"]
    expected = vision.solarize(vision.gaussian_blur(batch, [7, 7], [1.0, 1.0]), 0.5)
    done = batch.clone()
    for step in steps:
        done = operations(1.0)[step.name](done, torch.from_numpy(step.values[:1]).view(-1, 1, 1, 1))
    torch.testing.assert_close(done, expected, atol=1e-5, rtol=0)
    on_cpu = torch.from_numpy(augment_patch(pixels, params, 0)).permute(2, 0, 1)[None]
    torch.testing.assert_close(on_cpu, expected, atol=1e-4, rtol=0)
