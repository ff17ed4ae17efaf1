"""Protocols on real photographs, by one command."""

import json

import pytest
import torch
import torchvision

from sspyr_mm.__main__ import main

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return str(path)


@pytest.mark.parametrize("protocol", ["linear", "semi10", "asl"])
def test_protocol_on_real_images(real_data, torchvision_file, tmp_path, protocol):
    data = ["--coco", str(real_data / "coco_mini")]
    if protocol == "linear":
        data += ["--voc", str(real_data / "voc_mini")]
    with_random = protocol != "semi10"  # it trains with many pairs of learning rates
    quick = ["--size", "48", "--epochs", "2", "--work-dir", str(tmp_path), *(["--random"] if with_random else [])]
    assert main(["evaluate", torchvision_file, "--protocol", protocol, *data, *quick]) == 0
    results = [json.loads(path.read_text()) for path in tmp_path.glob("result-*.json")]
    counts = {r["data"]: r["counts"] for r in results}
    assert counts["coco17"] == {"train": 165, "test": 70, "classes": 80}
    if protocol == "linear":
        assert counts["voc07"] == {"train": 171, "test": 114, "classes": 20}
    assert {r["network"] for r in results} == {"resnet18.pth", *(["random"] if with_random else [])}
    assert {r["checkpoint"]["format"] for r in results} == {"torchvision", *(["random"] if with_random else [])}
    for result in results:
        assert 0 < result["value"] < 60 and not result["as_published"]
        assert set(result["further"]) >= {"mAP_voc11", "CF1", "OF1", "AP_per_class"}
