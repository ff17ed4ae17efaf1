"""Networks in files of unknown layout: search, and selection by the user."""

import json
import re

import pytest
import torch
from backbone_checks import assert_identical
from layouts import decoy, linear, mlp, prefixed
from torch import nn

from sspyr_mm.__main__ import main
from sspyr_mm.benchmarks.networks import read_networks
from sspyr_mm.checkpoints import Selection, export_backbone, inspect_checkpoint, read_backbone


@pytest.fixture(scope="module")
def other(small):
    return decoy(small, 5)


def numbered(state):
    """Tensors of ``Sequential(*resnet.children())``."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    return {f"{numbers[k.split('.')[0]]}.{k.split('.', 1)[1]}": v for k, v in state.items()}


def read(content, tmp_path, **select):
    torch.save(content, tmp_path / "x.pth")
    return read_backbone(tmp_path / "x.pth", select=Selection(**select))


HEADS = {**mlp("projector", 64, 16, 8), **linear("online_classifier.linear", 5, 64)}


@pytest.mark.parametrize(
    "prefix",
    [
        *("encoder.", "base_encoder.", "model.", "net.", "student.", "trunk._feature_blocks."),
        *("a.b.c.", "backbone.module.", "backbone.body.", ""),
    ],
)
@pytest.mark.parametrize("children", [dict, numbered])
def test_network_is_found_under_any_prefix(prefix, children, small, tmp_path):
    state = {**prefixed(prefix, children(small)), **HEADS, **linear(f"{prefix}fc.0", 5, 64)}
    found = read({"state_dict": state, "epoch": 3}, tmp_path)
    assert_identical(found.state_dict, small)
    assert (found.key, found.prefix) == ("state_dict", prefix)
    assert f"entry state_dict, {f'prefix {prefix}' if prefix else 'no prefix'}" in found.place


def test_heads_of_a_numbered_network_are_ignored(small, tmp_path):
    state = {**numbered(small), **linear("9", 5, 64), "8.weight": torch.ones(8, 64, 1, 1)}
    assert_identical(read(prefixed("backbone.", state), tmp_path).state_dict, small)


@pytest.mark.parametrize(
    "wrap",
    [
        *("_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "module.module."),
        *("backbone._orig_mod.", "_fsdp_wrapped_module.", "model._orig_mod.backbone."),
    ],
)
def test_components_of_wrappers_are_removed_anywhere(wrap, small, tmp_path):
    plain = wrap.replace("_orig_mod.", "").replace("_fsdp_wrapped_module.", "")
    found = read({"model": prefixed(wrap, small)}, tmp_path)
    assert_identical(found.state_dict, small)
    assert found.prefix == plain.replace("module.", "")
    within = {k.replace("layer2.", "layer2._orig_mod."): v for k, v in small.items()}
    assert_identical(read(within, tmp_path).state_dict, small)


def test_compiled_network_with_other_tensors_is_a_second_network(small, other, tmp_path):
    with pytest.raises(ValueError, match=r"several networks: '' .*, _orig_mod\."):
        read({**small, **prefixed("_orig_mod.", other)}, tmp_path)


@pytest.mark.parametrize(
    "path",
    [*("net", "model_state_dict", "weights", "module", "model.state_dict"), "classy_state_dict.base_model.model.trunk"],
)
def test_nested_dicts_are_searched(path, small, tmp_path):
    content = small
    for key in reversed(path.split(".")):
        content = {key: content, "epoch": 3, "heads": {"loss": torch.ones(1)}}
    content["optimizer"] = {"state": {0: {"exp_avg": torch.ones(3)}}, "buffers": decoy(small, 3)}
    found = read(content, tmp_path)
    assert_identical(found.state_dict, small)
    assert found.key == path


def test_search_depth_is_limited(small, tmp_path):
    content = small
    for _ in range(30):
        content = {"x": content}
    with pytest.raises(ValueError, match="and its nested dicts hold no tensors"):
        read(content, tmp_path)


# ------------------------------------------------------------------------------------- several networks


def test_prefix_selects_a_network(small, other, tmp_path):
    state = {**prefixed("student_backbone.", small), **prefixed("backbone.", other)}
    with pytest.raises(
        ValueError, match=r"several networks: student_backbone\. \(120 tensors\), backbone\. \(120 tensors\).*--prefix"
    ):
        read({"state_dict": state}, tmp_path)
    for prefix, expected in (
        ("student_backbone.", small),
        ("student_backbone", small),
        ("backbone.", other),
        ("module._orig_mod.backbone", other),
    ):
        found = read({"state_dict": state}, tmp_path, prefix=prefix)
        assert_identical(found.state_dict, expected)
    with pytest.raises(ValueError, match=r"no ResNet under --prefix net\.; .* student_backbone\. \("):
        read({"state_dict": state}, tmp_path, prefix="net.")


def test_prefix_overrides_the_detected_format(small, other, tmp_path):
    state = {**prefixed("encoder_q.", small), **prefixed("encoder_k.", other)}
    assert_identical(read(state, tmp_path).state_dict, small)
    assert_identical(read(state, tmp_path, prefix="encoder_k.").state_dict, other)
    state |= small  # a third network, without a prefix
    found = read({**state, **decoy(small, 8)}, tmp_path, prefix="")
    assert_identical(found.state_dict, decoy(small, 8))


def test_incomplete_network_is_not_selected(small, other, tmp_path):
    torn = {k: v for k, v in other.items() if "layer4.1." not in k}
    for one, two in (("a.", "b."), ("b.", "a.")):
        found = read({**prefixed(one, torn), **prefixed(two, small)}, tmp_path)
        assert (found.prefix, found.notes) == (two, ())
        assert_identical(found.state_dict, small)
    with pytest.raises(ValueError, match=r"several networks: a\. \(\d+ tensors\), b\. \(1"):
        read({**prefixed("a.", torn), **prefixed("b.", torn | {"bn1.bias": -torn["bn1.bias"]})}, tmp_path)


def test_missing_tensors_are_not_taken_from_another_network(small, other, tmp_path):
    torn = {k: v for k, v in small.items() if k != "layer4.1.bn2.running_var"}
    state = {**prefixed("encoder.", torn), **prefixed("momentum_encoder.", other)}
    with pytest.raises(ValueError, match=r"1 tensors of 120 missing: layer4.1.bn2.running_var"):
        read(state, tmp_path)


def test_equal_networks_count_as_one(small, tmp_path):
    state = {**prefixed("net.", small), **prefixed("online.net.", small)}
    assert_identical(read({"model": state, "copy": dict(state)}, tmp_path).state_dict, small)


@pytest.mark.parametrize("entry", ["target_network_state_dict", "momentum.state_dict"])
def test_single_momentum_encoder_must_be_selected_by_key(entry, small, tmp_path):
    first, _, second = entry.partition(".")
    content = {first: {second: small} if second else small}
    with pytest.raises(ValueError, match=rf"momentum encoder without .*{entry} .*--key NAME"):
        read(content, tmp_path)
    assert_identical(read(content, tmp_path, key=entry).state_dict, small)


@pytest.mark.parametrize(
    ("query", "momentum"),
    [
        ("base_encoder.", "momentum_encoder."),
        ("backbone.", "momentum_backbone."),
        ("backbone.", "backbone_momentum."),
        ("online_encoder.net.", "target_encoder.net."),
        ("model.encoder_q.", "model.encoder_k."),
    ],
)
def test_momentum_encoder_is_ignored(query, momentum, small, other, tmp_path):
    state = {**prefixed(momentum, other), **prefixed(query, small)}
    found = read(state, tmp_path)
    assert_identical(found.state_dict, small)
    assert f"--prefix {momentum} selects it" in found.place
    assert_identical(read(state, tmp_path, prefix=momentum).state_dict, other)


def averages(small, other):
    """Files of several programs with raw weights, ``small``, and averaged ones, ``other``."""
    counted = {"n_averaged": torch.tensor(3), **prefixed("module.", other)}
    raw = {"steps": torch.tensor(5), **prefixed("module.backbone.", small)}
    return {
        "timm": {"state_dict": small, "state_dict_ema": other},
        "torchvision": {"model": small, "model_ema": counted},
        "dino": {"student": prefixed("module.backbone.", small), "teacher": prefixed("backbone.", other)},
        "mmengine": {"meta": {}, "state_dict": prefixed("backbone.", other), "ema_state_dict": raw},
        "lightning": {"state_dict": {**prefixed("model.", small), **prefixed("averaged_model.", other)}},
        "prefixes": {**prefixed("student.", small), **prefixed("teacher.", other)},
    }


@pytest.mark.parametrize("kind", averages({}, {}))
def test_averaged_or_raw_weights_are_selected(kind, small, other, tmp_path):
    content = averages(small, other)[kind]
    for ema, expected, words in (
        (None, other, r"averaged weights \(.*\) are used; --no-ema selects"),
        (True, other, r"averaged weights \(.*\) are used; --no-ema selects"),
        (False, small, r"raw ones \(.*\) are used; --ema selects"),
    ):
        found = read(content, tmp_path, ema=ema)
        assert_identical(found.state_dict, expected)
        assert re.search(words, found.place)


def test_ema_option_without_such_weights_is_rejected(small, other, tmp_path):
    with pytest.raises(ValueError, match=r"no averaged weights .* only raw ones: remove --ema"):
        read({"state_dict": small}, tmp_path, ema=True)
    with pytest.raises(ValueError, match=r"no raw weights .* only averaged ones: .*--no-ema"):
        read({"state_dict_ema": small}, tmp_path, ema=False)
    assert_identical(read({"state_dict": small}, tmp_path, ema=False).state_dict, small)


def test_teacher_of_another_shape_is_a_second_network(small, tmp_path):
    wide = {k: torch.cat([v, v]) if v.dim() else v for k, v in small.items()}
    content = {"student": small, "teacher": wide}
    with pytest.raises(ValueError, match=r"several networks: student .*, teacher .*--key"):
        read(content, tmp_path)
    assert_identical(read(content, tmp_path, key="student").state_dict, small)


def test_ema_buffers_of_mmcv_are_reported(small, other, tmp_path):
    buffers = {f"ema_backbone_{k.replace('.', '_')}": v for k, v in other.items()}
    found = read({"meta": {}, "state_dict": {**prefixed("backbone.", small), **buffers}}, tmp_path)
    assert_identical(found.state_dict, small)
    assert "buffers ema_* of mmcv" in found.place
    assert inspect_checkpoint(tmp_path / "x.pth")["other_tensors"] == {"ema_*": len(buffers)}


@pytest.mark.parametrize("key", ["b", "b.weights"])
def test_key_selects_an_entry(key, small, other, tmp_path):
    content = {"a": small, "b": {"weights": other, "steps": 3}}
    with pytest.raises(ValueError, match=r"networks: a \(120 tensors\), b\.weights \(120 tensors\)"):
        read(content, tmp_path)
    found = read(content, tmp_path, key=key)
    assert_identical(found.state_dict, other)
    assert found.key == "b.weights"
    with pytest.raises(ValueError, match=r"no tensors under --key c; it has a \(120 .*, b\.weights"):
        read(content, tmp_path, key="c")


def test_unknown_trunk_part_is_reported(small, tmp_path):
    state = {**prefixed("net.", small), "net.conv2.weight": torch.ones(8, 8, 3, 3)}
    with pytest.raises(ValueError, match=r"1 tensors unexpected: conv2.weight"):
        read(state, tmp_path)


# --------------------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def two(small, other, tmp_path_factory):
    path = tmp_path_factory.mktemp("two") / "x.pth"
    inner = {**prefixed("a.", small), **prefixed("b.", other)}
    torch.save({"inner": inner, "model": nn.Linear(2, 2).state_dict()}, path)
    return path


def test_commands_have_the_same_options(two, other, tmp_path, capsys):
    options = ["--key", "inner", "--prefix", "b.", "--no-ema"]
    out = tmp_path / "out.pth"
    assert main(["export", str(two), str(out)]) == 2
    assert "several networks: a. (120 tensors), b. (120 tensors)" in capsys.readouterr().err
    assert main(["export", str(two), str(out), *options, "--to", "safetensors"]) == 2
    assert main(["export", str(two), str(out), *options]) == 0
    assert "entry inner, prefix b." in capsys.readouterr().out
    assert_identical(torch.load(out)["state_dict"], other)
    assert main(["inspect", str(two), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["key"], found["prefix"], found["other_tensors"]["a"]) == ("inner", "b.", 120)
    for command in ("evaluate", "probe", "health", "inspect", "export"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert all(x in text for x in ("--key", "--prefix", "--ema", "--no-ema", "--allow-pickle"))


def test_two_networks_of_one_file_have_different_identities(two):
    """Results and features are stored by identity."""
    hashes = {
        read_networks([str(two)], select=Selection(prefix=prefix))[0].encoder().identity for prefix in ("a.", "b.")
    }
    assert len(hashes) == 2


def test_export_uses_the_selected_network(two, other, tmp_path):
    export_backbone(two, tmp_path / "out.pth", select=Selection(prefix="b."))
    assert_identical(read_backbone(tmp_path / "out.pth").state_dict, other)
