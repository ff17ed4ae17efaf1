"""Health of pyramids in a known state."""

import math

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.datasets import PackPyramidInputs, PyramidViewTransform
from sspyr_mm.reports import measure_health

PYRAMID = {
    "s0": {"region": 16, "patch": 16, "num_prototypes": 8, "alpha": 1.0},
    "s1": {"region": 32, "patch": 12, "grid": 2, "num_prototypes": 6, "alpha": 0.25, "beta": 0.25},
}


class Noise(BaseDataset):
    """Images of noise, generated on access."""

    def load_data_list(self):
        return [{"number": i} for i in range(20)]

    def prepare_data(self, idx):
        image = np.random.default_rng(idx).integers(0, 256, (24, 24, 3), np.uint8)
        return self.pipeline({"img": image, "sample_idx": idx})


@pytest.fixture
def dataset():
    transform = PyramidViewTransform(PYRAMID)
    transform.set_epoch(0, seed=0)
    return Noise(pipeline=[transform, PackPyramidInputs()])


@pytest.fixture
def model():
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    backbone = {"type": "ResNet", "depth": 18, "stem_channels": 8, "base_channels": 8}
    neck = {"type": "PyramidProjector", "in_channels": 64, "hid_channels": 16, "out_channels": 16}
    return MODELS.build(
        {
            "type": "SSPRL",
            "pyramid": PYRAMID,
            "backbone": backbone,
            "neck": {**neck, "norm_cfg": {"type": "BN"}},
            "head": {"type": "SSPRLHead", "embed_dims": 16},
        }
    )


def by_name(found):
    return {one.name: one for one in found}


def test_health_has_expected_counts_and_ranges(model, dataset):
    found = by_name(measure_health(model, dataset, num_images=12, batch_size=5))
    assert list(found) == ["s0", "s1", "features"]
    for name, num_samples, num_prototypes in (("s0", 12, 8), ("s1", 48, 6)):
        values = found[name].values
        assert (values["samples"], values["prototypes"]) == (num_samples, num_prototypes)
        assert 1 <= values["used"] <= num_prototypes and 0 < values["deviation"] <= 1
    assert 0 <= found["s1"].values["position"] <= 1
    assert found["features"].values["samples"] == 24 and found["features"].values["contrast"] > 0.3


def test_features_are_those_of_images_from_the_whole_set(model, monkeypatch):
    """A folder holds similar images next to each other."""
    transform = PyramidViewTransform(PYRAMID)
    transform.set_epoch(0, seed=0)
    read = []

    class Long(Noise):
        def load_data_list(self):
            return [{"number": i} for i in range(300)]

        def prepare_data(self, idx):
            read.append(idx)
            return super().prepare_data(idx)

    found = by_name(measure_health(model, Long(pipeline=[transform, PackPyramidInputs()]), num_images=300))
    assert found["features"].values["samples"] == 256  # both views of 128 images
    assert sorted(read) == list(range(300))
    assert sum(index < 150 for index in read[:128]) == pytest.approx(64, abs=20)


def test_codes_are_computed_once(model, dataset, monkeypatch):
    calls = []
    solve = model.head.assigner.assign_many
    monkeypatch.setattr(model.head.assigner, "assign_many", lambda s: calls.append(len(s)) or solve(s))
    measure_health(model, dataset, batch_size=5)
    assert calls == [2, 2]  # two views of each scale


def test_collapse_is_detected(model, dataset):
    """Equal embeddings of all patches give uniform codes and an uninformed prediction."""
    for projector in model.neck.projectors.values():
        torch.nn.init.zeros_(projector[-1].weight)
    for prototypes in model.head.prototypes.values():
        # All scores equal, too: no prototype is nearer than another.
        prototypes.weight.data[:] = prototypes.weight.data[:1]
    found = by_name(measure_health(model, dataset))
    for name in ("s0", "s1"):
        values = found[name].values
        assert values["deviation"] == pytest.approx(0, abs=1e-3)
        assert values["entropy"] == pytest.approx(1, abs=1e-4)
        assert values["ratio"] == pytest.approx(1, abs=1e-4)
        assert found[name].finding.sign == "stuck"


def test_codes_of_few_patches_are_not_judged(model, dataset):
    """Those of one image are uniform, whatever the network."""
    found = by_name(measure_health(model, dataset, num_images=1))
    assert found["s0"].finding.sign == "too few patches" and "at least 8 patches of s0" in found["s0"].finding.advice


def test_embeddings_that_are_nearly_alike_are_not_fine(model, dataset):
    """Training reports them, too."""
    for projector in model.neck.projectors.values():
        torch.nn.init.constant_(projector[-1].bias, 3.0)
    assert by_name(measure_health(model, dataset))["s0"].finding.sign in ("stuck", "collapsed")


def test_health_equals_numpy(model, dataset):
    s0 = measure_health(model, dataset, num_images=20, batch_size=20)[0].values
    batch = [dataset[i]["inputs"] for i in range(20)]
    inputs = {k: torch.stack([b[k] for b in batch]) for k in batch[0]}
    with torch.no_grad():
        z = model.embed(model.data_preprocessor({"inputs": inputs})["inputs"])["s0"][:, :, 0]
        scores = model.head.prototypes["s0"](z)
        codes = [model.head.assigner.assign(s).double().numpy() for s in scores]
    z, scores = z.double().numpy(), scores.double().numpy()
    log_p = scores / 0.1
    log_p = log_p - np.log(np.exp(log_p).sum(-1, keepdims=True))
    crossed = -(codes[0] * log_p[1]).sum(1).mean() / 2 - (codes[1] * log_p[0]).sum(1).mean() / 2
    assert s0["deviation"] == pytest.approx(np.mean([np.sqrt(view.var(0).sum()) for view in z]), abs=1e-4)
    assert s0["alignment"] == pytest.approx((z[0] * z[1]).sum(1).mean(), abs=1e-5)
    assert s0["ratio"] == pytest.approx(crossed / math.log(8), abs=1e-5)
    assert s0["used"] == len({int(i) for q in codes for i in q.argmax(1)})


def test_batches_do_not_change_the_result(model, dataset):
    first, second = (measure_health(model, dataset, batch_size=size) for size in (20, 7))
    for one, other in zip(first, second, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-4)
