"""Specification of the pyramid: derived values, and rejected configs."""

import math
import re
from dataclasses import FrozenInstanceError

import pytest
from mmengine.config import Config
from project import ROOT

from sspyr_mm.pyramid import MultiCropSpec, PyramidSpec

THREE_SCALES = ROOT / "configs/_base_/pyramids/three_scales.py"
S0 = dict(region=8, patch=8, num_prototypes=3, alpha=1.0)
SCALE = dict(**S0, beta=0.25)


def one(**fields):
    return dict(s0={**S0, **fields})


def two(**fields):
    return dict(s0=S0, s1={**SCALE, "grid": 2, "patch": 4, **fields})


def test_pyramid_of_the_paper():
    spec = PyramidSpec.from_config(Config.fromfile(THREE_SCALES).model.pyramid)
    assert spec.num_scales == 3
    assert [s.num_patches for s in spec.scales] == [1, 4, 9]
    assert [s.cell for s in spec.scales] == [224, 157, 127]  # 2 px of 383 stay unused
    assert [s.patch for s in spec.scales] == [224, 112, 96]
    assert [s.num_prototypes for s in spec.scales] == [300, 150, 150]
    assert [(s.alpha, s.beta) for s in spec.scales] == [(1, 0), (0.25, 0.25), (0.25, 0.25)]
    assert [s.area for s in spec.scales] == [(0.14, 1), (0.6, 1), (0.6, 1)]
    assert {s.aspect for s in spec.scales} == {(3 / 4, 4 / 3)}
    assert [s.shared_region for s in spec.scales] == [False, True, True]
    assert [s.num_regions for s in spec.scales] == [2, 1, 1]
    assert [(s.scale_idx, s.name) for s in spec.scales] == [(0, "s0"), (1, "s1"), (2, "s2")]
    assert not any(s.queue_length or s.multi_crop for s in spec.scales)


def test_groups_of_a_plain_pyramid_are_its_scales():
    spec = PyramidSpec.from_config(two())
    assert [g.name for g in spec.groups] == ["s0", "s1"]
    for group, scale in zip(spec.groups, spec.scales, strict=True):
        assert spec.groups_of(scale) == (group,)
        assert group.aspect == scale.aspect
        assert (group.num_views, group.num_regions) == (2, scale.num_regions)
        assert (group.region, group.patch, group.grid) == (scale.region, scale.patch, scale.grid)
        assert (group.cell, group.num_patches, group.area) == (scale.cell, scale.num_patches, scale.area)


def test_multi_crops_are_a_group_of_scale_0():
    config = two()
    config["s0"] = {**S0, "multi_crop": dict(num_views=5, patch=4, area=[0.05, 0.14])}
    spec = PyramidSpec.from_config(config)
    assert [g.name for g in spec.groups] == ["s0", "s0_crops", "s1"]
    crops = spec.groups[1]
    assert spec.groups_of(spec.scales[0]) == spec.groups[:2]
    assert (crops.num_views, crops.num_regions, crops.num_patches) == (5, 5, 1)
    assert (crops.region, crops.cell, crops.patch, crops.area) == (4, 4, 4, (0.05, 0.14))
    assert PyramidSpec.from_config(one(multi_crop={})).scales[0].multi_crop == MultiCropSpec()


def test_dumped_config_gives_the_same_spec(tmp_path):
    pyramid = Config.fromfile(THREE_SCALES).model.pyramid.to_dict()
    pyramid["s0"]["multi_crop"] = dict(num_views=6, patch=96, area=(0.05, 0.14))
    pyramid["s1"].update(shared_region=False, queue_length=50, aspect=(0.5, 2.0))
    before = PyramidSpec.from_config(pyramid)
    for suffix in ("py", "json", "yaml"):
        path = tmp_path / f"dumped.{suffix}"
        Config(dict(model=dict(pyramid=pyramid))).dump(path)
        assert PyramidSpec.from_config(Config.fromfile(path).model.pyramid) == before, suffix
    assert before.scales[0].multi_crop == MultiCropSpec(6, 96, (0.05, 0.14))
    assert before.scales[1].num_regions == 2
    assert PyramidSpec.from_config(before) is before


def test_defaults():
    scale = PyramidSpec.from_config(two()).scales[0]
    assert (scale.area, scale.aspect, scale.grid) == ((0.6, 1.0), (3 / 4, 4 / 3), 1)
    assert (scale.queue_length, scale.multi_crop, scale.beta) == (0, None, 0)
    # Official code: six crops of 96 px.
    assert MultiCropSpec() == MultiCropSpec(num_views=6, patch=96, area=(0.05, 0.14))


@pytest.mark.parametrize("aspect", [(3 / 4, 4 / 3), (0.9, 4.0), (0.25, 1.1), (1.0, 1.0)])
def test_reduction_enlarges_no_crop(aspect):
    """The narrowest crop of least area has as many pixels as its region, but not at the next scale."""
    config = two(region=12, area=(0.3, 1.0), aspect=aspect)
    config["s0"] = {**S0, "area": (0.14, 1.0), "multi_crop": dict(patch=4, area=(0.05, 0.14))}
    spec = PyramidSpec.from_config(config)
    found = []
    for width in range(10, 600, 5):
        image = (width * 2 / 3) * width
        narrow = {
            group.name: min(
                math.sqrt(group.area[0] * image * group.aspect[0]),  # widths
                math.sqrt(group.area[0] * image / group.aspect[1]),  # heights
            )
            / group.region
            for group in spec.groups
        }
        least = min(narrow.values())
        found.append(spec.views.reduction((width * 2 / 3, width)))
        assert found[-1] == (1 if least < 2 else 2 if least < 4 else 4 if least < 8 else 8)
    assert set(found) == {1, 2, 4, 8}


def test_from_config_does_not_change_the_config():
    config = one(multi_crop=dict(area=[0.1, 0.2]), area=[0.5, 1.0])
    PyramidSpec.from_config(config)
    assert config == one(multi_crop=dict(area=[0.1, 0.2]), area=[0.5, 1.0])


def test_last_scales_can_be_left_out_and_order_does_not_matter():
    full = dict(s2=SCALE, s0=S0, s1=SCALE)
    assert [s.name for s in PyramidSpec.from_config(full).scales] == ["s0", "s1", "s2"]
    assert PyramidSpec.from_config({**full, "s2": None}).num_scales == 2
    many = {f"s{i}": SCALE if i else S0 for i in range(12)}
    assert [s.scale_idx for s in PyramidSpec.from_config(many).scales] == list(range(12))


def test_shared_region_can_be_chosen_per_scale():
    config = dict(s0={**S0, "shared_region": True}, s1={**SCALE, "shared_region": False})
    assert [s.num_regions for s in PyramidSpec.from_config(config).scales] == [1, 2]


def test_spec_is_comparable_hashable_and_frozen():
    spec = PyramidSpec.from_config(two())
    assert spec == PyramidSpec.from_config(two())
    assert hash(spec) == hash(PyramidSpec.from_config(two()))
    assert spec != PyramidSpec.from_config(two(alpha=0.5))
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'patch'"):
        spec.scales[0].patch = 4


def test_patch_larger_than_its_cell_is_rejected():
    spec = PyramidSpec.from_config(two(region=11, grid=3, patch=3))
    assert spec.scales[1].cell == spec.scales[1].patch == 3
    message = (
        "pyramid.s1: a patch of 4 px does not fit its cell of 3 px (region 11 // grid 3): "
        "set region >= 12 or patch <= 3"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidSpec.from_config(two(region=11, grid=3, patch=4))


def test_grid_finer_than_its_region_is_rejected():
    with pytest.raises(ValueError, match=r"a patch of 1 px does not fit its cell of 0 px"):
        PyramidSpec.from_config(two(region=3, grid=4, patch=1))


INTEGER = "must be an integer >= 1, got "
RANGE = "must be (low, high) with 0 < low <= high"
REFUSED = [
    *[(dict([(f, 0)]), f"pyramid.s1.{f} {INTEGER}0") for f in ("grid", "region", "patch")],
    (dict(num_prototypes=0), f"pyramid.s1.num_prototypes {INTEGER}0, or leave the scale out by setting it to None"),
    (dict(num_prototypes=-3), f"pyramid.s1.num_prototypes {INTEGER}-3"),
    (dict(num_prototypes=3.0), f"pyramid.s1.num_prototypes {INTEGER}3.0"),
    (dict(num_prototypes=True), f"pyramid.s1.num_prototypes {INTEGER}True"),
    (dict(grid="2"), f"pyramid.s1.grid {INTEGER}'2'"),
    (dict(alpha=[0.25, 0.25]), "pyramid.s1.alpha must be one number >= 0, got (0.25, 0.25)"),
    (dict(alpha=-1), "pyramid.s1.alpha must be one number >= 0, got -1"),
    (dict(alpha=float("nan")), "pyramid.s1.alpha must be one number >= 0, got nan"),
    (dict(alpha=float("inf")), "pyramid.s1.alpha must be one number >= 0, got inf"),
    (dict(alpha=None), "pyramid.s1.alpha must be one number >= 0, got None"),
    (dict(beta=-0.1), "pyramid.s1.beta must be one number >= 0, got -0.1"),
    (dict(beta="0.25"), "pyramid.s1.beta must be one number >= 0, got '0.25'"),
    (dict(area=0.6), f"pyramid.s1.area {RANGE} <= 1, got 0.6"),
    (dict(area=(0, 1)), f"pyramid.s1.area {RANGE} <= 1, got (0, 1)"),
    (dict(area=(0.6, 1.1)), f"pyramid.s1.area {RANGE} <= 1, got (0.6, 1.1)"),
    (dict(area=(0.8, 0.6)), f"pyramid.s1.area {RANGE} <= 1, got (0.8, 0.6)"),
    (dict(area=(0.1, 0.2, 0.3)), f"pyramid.s1.area {RANGE} <= 1, got (0.1, 0.2, 0.3)"),
    (dict(area=("0.6", "1")), f"pyramid.s1.area {RANGE} <= 1, got ('0.6', '1')"),
    (dict(aspect=[4 / 3, 3 / 4]), f"pyramid.s1.aspect {RANGE}, got (1.33"),
    (dict(aspect=(0.5, float("inf"))), f"pyramid.s1.aspect {RANGE}, got (0.5, inf)"),
    (dict(queue_length=-1), "pyramid.s1.queue_length must be an integer >= 0"),
    (dict(queue_length=19.5), "queue_length must be an integer >= 0, got 19.5"),
    (dict(queue_length=True), "queue_length must be an integer >= 0, got True"),
    (dict(shared_region=None), "pyramid.s1.shared_region must be True or False, got None"),
    (dict(shared_region="no"), "pyramid.s1.shared_region must be True or False, got 'no'"),
    (dict(multi_crop={}), "pyramid.s1.multi_crop: extra crops belong to s0"),
    (dict(crop=3, gird=2), "pyramid.s1 has unknown fields ['crop', 'gird']: allowed are ['alpha',"),
    (dict(name="s1"), "pyramid.s1 has unknown fields ['name']"),
    (dict(scale_idx=1), "pyramid.s1 has unknown fields ['scale_idx']"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_impossible_scales_are_rejected(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidSpec.from_config(two(**fields))


@pytest.mark.parametrize(
    ("crops", "error", "message"),
    [
        (dict(num_views=0), ValueError, f"pyramid.s0.multi_crop.num_views {INTEGER}0"),
        (dict(num_views=True), ValueError, f"pyramid.s0.multi_crop.num_views {INTEGER}True"),
        (dict(patch=9.5), ValueError, f"pyramid.s0.multi_crop.patch {INTEGER}9.5"),
        (dict(area=[0.1, 2]), ValueError, f"pyramid.s0.multi_crop.area {RANGE} <= 1, got (0.1, 2)"),
        (dict(size=3), ValueError, "pyramid.s0.multi_crop has unknown fields ['size']: allowed are"),
        (6, TypeError, "pyramid.s0.multi_crop must be a dict such as dict(num_views=6, patch=96)"),
    ],
)
def test_impossible_multi_crops_are_rejected(crops, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PyramidSpec.from_config(one(multi_crop=crops))


def test_beta_at_scale_0_is_rejected():
    with pytest.raises(ValueError, match=r"pyramid\.s0\.beta must be 0, got 0\.25: scale 0 is the target"):
        PyramidSpec.from_config(one(beta=0.25))


@pytest.mark.parametrize(
    ("scale", "lacks", "message"),
    [
        ("s0", ["alpha"], "pyramid.s0 does not state alpha, the weight of its loss: write s0=dict(alpha=1.0, ...)"),
        ("s1", ["alpha"], "pyramid.s1 does not state alpha, the weight of its loss: write s1=dict(alpha=0.25, ...)"),
        ("s1", ["beta"], "pyramid.s1 does not state beta, the weight of its loss: write s1=dict(beta=0.25, ...), or 0"),
        ("s1", ["alpha", "beta"], "does not state alpha and beta, the weight of its loss: write s1=dict(alpha=0.25"),
    ],
)  # fmt: skip
def test_loss_weights_must_be_stated(scale, lacks, message):
    config = dict(s0=S0, s1=SCALE)
    config[scale] = {k: v for k, v in config[scale].items() if k not in lacks}
    with pytest.raises(ValueError, match=re.escape(message)):
        PyramidSpec.from_config(config)
    config[scale].update(dict.fromkeys(lacks, 0))  # stated, so that the term is left out
    spec = PyramidSpec.from_config(config).scales[int(scale[1])]
    assert [getattr(spec, name) for name in lacks] == [0] * len(lacks)


@pytest.mark.parametrize("field", ["region", "patch", "num_prototypes"])
def test_missing_fields_are_reported(field):
    config = {k: v for k, v in S0.items() if k != field}
    with pytest.raises(ValueError, match=rf"pyramid\.s0 lacks \['{field}'\]: add them"):
        PyramidSpec.from_config(dict(s0=config))


def test_the_example_for_missing_sizes_fits_the_grid():
    with pytest.raises(ValueError, match=r"pyramid\.s1=dict\(region=224, patch=56, "):
        PyramidSpec.from_config(dict(s0=S0, s1=dict(grid=4, num_prototypes=6, alpha=0.25, beta=0.25)))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({}, ValueError, "The pyramid has no scale: give at least s0"),
        (dict(s0=None), ValueError, "The pyramid has no scale"),
        (dict(s0=SCALE, s2=SCALE), ValueError, "without a gap, got ['s0', 's2']: rename them to"),
        (dict(s0=SCALE, s1=None, s2=SCALE), ValueError, "or set all scales above the last one to None"),
        (dict(s1=SCALE), ValueError, "without a gap, got ['s1']: rename them to ['s0']"),
        (dict(s0=SCALE, coarse=SCALE), ValueError, "got ['coarse', 's0']"),
        ({"s0": SCALE, 1: SCALE}, ValueError, "got [1, 's0']"),
        ([SCALE], TypeError, "pyramid must be a dict of scales (s0=..., s1=...), got list"),
        (None, TypeError, "got NoneType"),
        (dict(s0=224), TypeError, "pyramid.s0 must be a dict, got int"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_pyramids_are_rejected(config, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PyramidSpec.from_config(config)
