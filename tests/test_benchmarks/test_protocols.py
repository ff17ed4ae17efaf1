"""The list of protocols, their data sets, and changes of their configs."""

import ast
from types import SimpleNamespace

import pytest
from project import ROOT

from sspyr_mm.benchmarks.base_protocol import DataOptions, Settings
from sspyr_mm.benchmarks.evaluate import plan_runs
from sspyr_mm.benchmarks.protocols import PROTOCOLS, find_protocol
from sspyr_mm.benchmarks.training.recipes import load_recipe, rescale_schedule

PACKAGE = ROOT / "sspyr_mm"
LISTS = ("benchmarks/protocols.py", "benchmarks/results/rows.py", "benchmarks/systems.py")


def test_names_are_unique_and_unknown_names_are_refused():
    names = [protocol.name for protocol in PROTOCOLS]
    assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match=r"no protocol 'semi2': choose one of linear, semi1, "):
        find_protocol("semi2")


def test_no_other_module_names_a_protocol():
    names = {protocol.name for protocol in PROTOCOLS}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names:
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == set(LISTS)


def test_protocols_of_one_kind_share_data_and_run_by_default_on_the_papers(scenes):
    options = DataOptions(voc=str(scenes), coco=str(scenes), voc_masks=str(scenes))
    runs = plan_runs([], options, [0], Settings())
    assert [(data.name, protocol.name) for protocol, data in runs] == [
        ("voc07", "linear"),
        ("coco17", "linear"),
        ("coco17", "semi100"),
        ("coco17", "asl"),
        ("voc07", "fcn_voc"),
    ]
    assert len({id(data) for _, data in runs}) == 3
    chosen = [find_protocol("asl224")]
    ((protocol, data),) = plan_runs(chosen, DataOptions(voc=str(scenes)), [0], Settings())
    assert protocol.name == "asl224" and data.name == "voc07"


@pytest.mark.parametrize(("epochs", "milestones"), [(40, [24, 32]), (4, [2, 3]), (1, [1, 1])])
def test_epochs_keep_the_proportions_of_the_schedule(epochs, milestones):
    cfg = load_recipe(find_protocol("semi100").config)
    rescale_schedule(cfg, epochs)
    assert cfg.param_scheduler.milestones == milestones
    assert cfg.train_cfg.max_epochs == cfg.train_cfg.val_interval == epochs


def test_options_are_checked_against_the_networks_own_backbone():
    settings = Settings(options={"model.backbone.layer_scale_init_value": 0.1})
    networks = [
        SimpleNamespace(checkpoint=SimpleNamespace(backbone=backbone), name="x.pth")
        for backbone in (dict(type="ResNet", depth=18), dict(type="ConvNeXt", arch="atto"))
    ]
    protocol = find_protocol("asl")
    with pytest.raises(ValueError, match=r"\(ResNet\) has no setting `layer_scale_init_value`"):
        protocol.check_network(networks[0], settings)
    protocol.check_network(networks[1], settings)
