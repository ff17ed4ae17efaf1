"""Reproduction of tables: the plan, what exists already, the table, and a real run."""

import csv
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import commands
import pytest
from instruments import method_cost
from instruments.fake_step import step_flops
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

import sspyr_mm.registration  # noqa: F401
from sspyr_mm.benchmarks import reproduce
from sspyr_mm.benchmarks.plan import Plan
from sspyr_mm.benchmarks.reproduce import _options, _text, build_table, plan_steps, run_steps
from sspyr_mm.benchmarks.results.paper_table import plot, to_csv, to_markdown
from sspyr_mm.benchmarks.results.result import Result, write_result
from sspyr_mm.benchmarks.systems import TABLES, find_table, training_slug
from sspyr_mm.checkpoints.bounded import UnfilledParameters
from sspyr_mm.engine.options import merge_options

DATA = dict.fromkeys(("images", "imagenet", "coco", "voc", "voc_masks"), ".")
SYSTEMS = {
    (scale, system.folder, system.full, str(system.mini_options)): (table.name, system.name, scale)
    for scale in ("mini", "full")
    for table in TABLES
    for system in table.systems
    if system.folder
}


def plan_of(table="S-C", scale="mini", work_dir="W", **changes):
    plan = Plan(table=find_table(table), scale=scale, seeds=(0, 1), work_dir=Path(work_dir), data=DATA)
    return replace(plan, **changes)


@pytest.mark.parametrize(("table", "name", "scale"), SYSTEMS.values(), ids=lambda x: str(x).replace(" ", "_"))
def test_config_of_every_system_accepts_its_options_and_builds(table, name, scale):
    plan = plan_of(table, scale)
    (system,) = (s for s in plan.table.systems if s.name == name)
    cfg = Config.fromfile(plan.config(system))
    merge_options(cfg, _options(plan, system))
    init_default_scope("mmpretrain")
    with UnfilledParameters():
        MODELS.build(cfg.model)
    assert plan.table.published(system) > 40


def test_rows_of_the_tables_are_those_of_the_paper():
    assert [len(table.systems) for table in TABLES] == [9, 17, 3, 5]
    names = [s.name for s in find_table("S-A").systems]
    assert names == ["Random init", *(f"{m} (COCO)" for m in (
        "MoCo v2", "SwAV", "BYOL", "DenseCL", "DetCo", "MaskCo", "InsLoc", "SS-PRL"))]  # fmt: skip
    published = [find_table("S-D").published(s) for s in find_table("S-D").systems]
    assert published == [77.6, 79.6, 79.9, 79.9, 79.2]
    with pytest.raises(ValueError, match="no table 'S-E': choose one of S-A, S-B, S-C, S-D"):
        find_table("S-E")


def test_plan_lists_every_command_once_and_knows_what_exists(tmp_path):
    plan = plan_of("S-C", work_dir=tmp_path)
    steps = plan_steps(plan)
    assert [step.what.split()[0] for step in steps] == ["draw", *["pre-train", "evaluate"] * 3 * 2]
    assert not any(step.is_done for step in steps)
    (tmp_path / "mini/pretrain/ss-prl-coco/seed1").mkdir(parents=True)
    (tmp_path / "mini/pretrain/ss-prl-coco/seed1/epoch_40.pth").touch()
    done = [step.what for step in plan_steps(plan) if step.is_done]
    assert done == ["pre-train SS-PRL, two scales, seed 1"]


@pytest.mark.parametrize(("scale", "num"), [("mini", 13), ("full", 22)])
def test_rows_that_train_alike_share_their_checkpoint(scale, num):
    systems = [s for table in TABLES for s in table.systems if s.folder and (scale == "full" or s.images == "coco")]
    slugs = {training_slug(system, scale) for system in systems}
    # Without the two scales of S-C and S-D, which at mini size are SS-PRL of S-A.
    assert len(slugs) == num
    for system in systems:
        alike = [s for s in systems if training_slug(s, scale) == training_slug(system, scale)]
        assert len({(s.folder, s.full if scale == "full" else (s.mini, str(s.mini_options))) for s in alike}) == 1
    for table in TABLES:  # whose rows may be trained at the same time
        rows = [training_slug(s, scale) for s in plan_of(table.name, scale).trained]
        assert len(rows) == len(set(rows))


def test_seeds_and_budget_are_the_same_for_all_methods(tmp_path):
    plan = plan_of("S-A", work_dir=tmp_path)
    commands_ = [shlex.join(step.command) for step in plan_steps(plan) if step.what.startswith("pre-train")]
    assert len(commands_) == 8 * 2
    for command in commands_:
        assert "train_cfg.max_epochs=40" in command and "model.data_preprocessor.jitter=[0.6,0.6,0.8,0.5]" in command
    assert sum("randomness.seed=1" in command for command in commands_) == 8


def test_full_size_states_the_missing_data():
    plan = plan_of("S-B", "full", data={**DATA, "imagenet": None})
    with pytest.raises(ValueError, match="Table S-B at full size needs --imagenet DIR"):
        plan_steps(plan)
    with pytest.raises(ValueError, match="needs --images DIR --voc-masks DIR"):
        plan_steps(plan_of("S-A", "full", data={}))
    with pytest.raises(ValueError, match="--images nowhere is not a folder"):
        plan_steps(plan_of("S-A", "full", data={**DATA, "images": "nowhere"}))
    with pytest.raises(ValueError, match="--images nowhere and --voc-masks none are not folders"):
        plan_steps(plan_of("S-A", "full", data={**DATA, "images": "nowhere", "voc_masks": "none"}))
    only_coco = replace(plan, methods=("SwAV (COCO)",))
    steps = plan_steps(only_coco)
    assert [step.what for step in steps] == [
        f"{w} SwAV (COCO), seed {s}" for s in (0, 1) for w in ("pre-train", "evaluate")
    ]
    assert "--random" not in steps[1].command and "r50_coco_200e.py" in " ".join(steps[0].command)
    # 82 783 images x 200 epochs x 2.3 times MoCo v2's 16.4 G multiply-adds at 40 TFLOP/s.
    assert steps[0].hours == pytest.approx(82783 * 200 * 2.3 * 2 * 16.4e9 / 40e12 / 3600)


def test_methods_are_chosen_by_name_or_folder():
    with pytest.raises(ValueError, match="Table S-C at mini size has no SwAV: choose from ss-prl-scale-0-alone, "):
        plan_steps(plan_of(methods=("SwAV",)))
    with pytest.raises(ValueError, match=r"no byol-imagenet: .* byol-coco, .* maskco-coco \(a reconstruction\)"):
        plan_steps(plan_of("S-B", methods=("moco-v2-coco", "byol-imagenet")))
    with pytest.raises(ValueError, match=r"no dense cl coco; do you mean densecl-coco\?"):
        plan_steps(plan_of("S-B", methods=("dense cl coco",)))
    with pytest.raises(ValueError, match=r"Random init is measured with .* --methods random-init moco-v2-coco"):
        plan_steps(plan_of("S-B", methods=("random-init",)))
    with pytest.raises(ValueError, match="--gpus 2 is for --scale full"):
        plan_steps(plan_of(gpus=2))
    for name in ("SS-PRL, two scales", "ss-prl-two-scales"):
        assert len(plan_steps(plan_of(methods=(name,), seeds=(0,)))) == 3


@pytest.mark.parametrize("table", ["S-A", "S-B", "S-C", "S-D"])
def test_scenes_fill_a_batch_of_training(table):
    with pytest.raises(ValueError, match="--num-images 63 is less than a batch of 64 images"):
        plan_steps(plan_of(table, num_images=63))
    plan_steps(plan_of(table, num_images=64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "X", "--voc-masks", "Y"], "--images, --voc-masks: for --scale full"),
        (["--scale", "full", "--num-images", "100"], "--num-images 100 is for --scale mini"),
        (["--slurm", "{folder}/none/table.sbatch"], "there is no folder {folder}/none"),
        (["--slurm", "{folder}/table.sbatch", "--jobs", "2"], "--jobs 2 is for this machine: a Slurm array has a task"),
        (["--jobs", "9999"], "--jobs 9999 is more than the cores of this machine: give at most "),
    ],
)
def test_options_are_refused_before_the_work(options, message, tmp_path):
    options = [option.format(folder=tmp_path) for option in options]
    done = commands.run("-m", "sspyr_mm", "reproduce", "S-A", *options, "--work-dir", tmp_path / "w", check=False)
    assert done.returncode == 2 and message.format(folder=tmp_path) in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("gpus", "size"), [(1, 128), (4, 32), (8, 16)])
def test_batch_of_the_full_size_is_the_recipes_for_any_number_of_gpus(gpus, size):
    for step in plan_steps(plan_of("S-A", "full", gpus=gpus, seeds=(0,))):
        assert step.what.startswith("evaluate") or f"train_dataloader.batch_size={size}" in step.command
        # dist_train.sh would start any `python`.
        assert step.what.startswith("evaluate") or gpus == 1 or step.command[:2] == ["env", f"PYTHON={sys.executable}"]
    with pytest.raises(ValueError, match="128 images per step, which --gpus 3 does not divide"):
        plan_steps(plan_of("S-A", "full", gpus=3))


def test_results_of_other_settings_are_not_reused(tmp_path):
    run_steps(plan_of(work_dir=tmp_path), [])
    plan_steps(plan_of(work_dir=tmp_path, table="S-D"))
    for changes, given in ((dict(num_images=400), "40 epochs of 400"), (dict(epochs=1), "1 epoch of 4000")):
        with pytest.raises(ValueError, match=f"results of 40 epochs of 4000 scenes, not {given} scenes: give the same"):
            plan_steps(plan_of(work_dir=tmp_path, **changes))
    full = plan_of("S-A", "full", tmp_path, data=dict(images=".", voc_masks="."))
    run_steps(full, [])
    plan_steps(plan_of("S-B", "full", tmp_path))  # with further data sets
    with pytest.raises(ValueError, match="results of no --epochs, not --epochs 1: give the same"):
        plan_steps(replace(full, epochs=1))
    run_steps(replace(full, work_dir=tmp_path / "short", epochs=1), [])
    with pytest.raises(ValueError, match="results of --epochs 1, not no --epochs"):
        plan_steps(replace(full, work_dir=tmp_path / "short"))
    with pytest.raises(ValueError, match=f"results of --images {Path.cwd()}, not --images {tmp_path}"):
        plan_steps(plan_of("S-A", "full", tmp_path, data={**DATA, "images": str(tmp_path)}))


@pytest.mark.parametrize("text", ["{", "null", "3"])
def test_unreadable_settings_are_named(tmp_path, text):
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini/settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"mini/settings.json does not hold the settings .*another --work-dir"):
        plan_steps(plan_of(work_dir=tmp_path))


def write(folder, network, value, seed):
    folder.mkdir(parents=True, exist_ok=True)
    about = dict(sha256="0" * 64, identity=f"{network}{seed}")
    result = Result(network, "fcn_voc", "voc07", seed, "mIoU", value, False, about, {}, "d", {})
    write_result(result, str(folder / f"result-{network}.json"))


def test_table_has_published_and_measured_results_and_an_interval(tmp_path):
    plan = plan_of("S-A", work_dir=tmp_path, methods=("BYOL (COCO)",))
    for seed, values in ((0, (20.0, 30.0, 31.0)), (1, (22.0, 34.0, 30.0))):
        folder = tmp_path / "mini/S-A"
        write(folder / f"moco-v2-coco/seed{seed}", "random", values[0], seed)
        write(folder / f"moco-v2-coco/seed{seed}", "epoch_10.pth", values[1], seed)
        if seed == 0:
            write(folder / f"byol-coco/seed{seed}", "epoch_10.pth", values[2], seed)
    found = build_table(plan)
    rows = {row.system: row for row in found.rows}  # all of the table, whatever is chosen to run
    assert len(rows) == 9
    assert [(n, rows[n].published, rows[n].measured) for n in ("Random init", "MoCo v2 (COCO)", "BYOL (COCO)")] == [
        ("Random init", 40.7, 21.0),
        ("MoCo v2 (COCO)", 57.3, 32.0),
        ("BYOL (COCO)", 54.1, 31.0),
    ]
    assert rows["MoCo v2 (COCO)"].values == {0: 30.0, 1: 34.0}
    # Student's t with one degree of freedom: 12.71 s / sqrt(2), s = sqrt(8).
    assert rows["MoCo v2 (COCO)"].half == pytest.approx(12.71 * 2.0, rel=1e-3)
    assert rows["BYOL (COCO)"].half is None and rows["SwAV (COCO)"].measured is None
    text = re.sub(" +", " ", to_markdown(found))
    assert text.startswith(
        "Table S-A, mini size: FCN mIoU on generated scenes, each row pre-trained for 40 epochs of 4000 scenes. "
        "Published: FCN mIoU on VOC 2012. In percent; ±: 95 % interval of the mean (Student's t).\n"
    )
    assert "| MoCo v2 (COCO) | 57.3 | 32.0 ± 25.4 | 0: 30.0, 1: 34.0 |" in text
    assert "| SwAV (COCO) | 56.1 | - | |" in text
    assert "| MaskCo (COCO) | 59.8 | - † |" in text and "\n† MaskCo (COCO), measured: a reconstruction" in text
    table = list(csv.DictReader(to_csv(found).splitlines()))
    names = ("system", "measured", "seeds", "values", "published_as", "measured_as", "note")
    figures = ["MoCo v2 (COCO)", "32.0", "0 1", "30.0 34.0", "FCN mIoU on VOC 2012", "FCN mIoU on generated scenes", ""]
    assert [table[1][name] for name in names] == figures
    assert float(table[1]["ci95_half_width"]) == rows["MoCo v2 (COCO)"].half
    assert table[6]["note"].startswith("a reconstruction")
    plot(found, tmp_path / "table.svg")
    drawn = (tmp_path / "table.svg").read_text()
    for shown in (
        "InsLoc (COCO)",
        "MaskCo (COCO) †",
        "† MaskCo (COCO), measured: a",
        "measured: FCN mIoU on generated",
    ):
        assert f"<!-- {shown}" in drawn
    assert "pre-trained for 1 epoch of" in build_table(replace(plan, epochs=1)).title


def test_random_weights_are_measured_once_per_seed_next_to_any_system(tmp_path):
    def random_steps(**changes):
        steps = plan_steps(plan_of("S-A", work_dir=tmp_path, **changes))
        return [step.what for step in steps if "--random" in step.command]

    assert random_steps() == [f"evaluate MoCo v2 (COCO) and Random init, seed {seed}" for seed in (0, 1)]
    assert random_steps(methods=("byol-coco",)) == []
    both = [f"evaluate BYOL (COCO) and Random init, seed {s}" for s in (0, 1)]
    assert random_steps(methods=("byol-coco", "random-init")) == both
    write(tmp_path / "mini/S-A/byol-coco/seed1", "random", 20.0, 1)
    assert random_steps() == ["evaluate MoCo v2 (COCO) and Random init, seed 0"]
    # A result of random weights alone does not finish a system.
    assert not any(step.is_done for step in plan_steps(plan_of("S-A", work_dir=tmp_path)))
    write(tmp_path / "mini/S-A/moco-v2-coco/seed0", "epoch_10.pth", 30.0, 0)
    assert random_steps() == ["evaluate Random init, seed 0 (network of MoCo v2 (COCO))"]


def test_output_of_a_step_is_in_its_log_and_the_end_of_it_in_the_error(tmp_path, capfd):
    code = "import sys; print('\\n'.join(f'line {i}' for i in range(99))); sys.exit(sys.argv[1])"
    plan, log = plan_of(work_dir=tmp_path), tmp_path / "seed0/log.txt"

    def step(status):
        return reproduce.Step("train", [sys.executable, "-c", code, status], log, False, 1.0, ("a", 0))

    with pytest.raises(
        ChildProcessError, match=r"train failed with exit status 1; whole log: .*seed0/log.txt"
    ) as error:
        run_steps(plan, [step("a bad end")])
    assert "line 98\na bad end" in str(error.value) and "line 3\n" not in str(error.value)
    assert "line 3\n" in log.read_text()
    assert capfd.readouterr().err == f"== 1/1 train; log: {log}\n"


def test_jobs_of_the_full_size_do_not_share_gpus():
    with pytest.raises(ValueError, match=r"--jobs 2 needs 9998 GPUs \(4999 per job\), and this machine has"):
        plan_steps(plan_of("S-A", "full", jobs=2, gpus=4999))


def test_values_are_formatted_as_options_are_read():
    assert [_text(value) for value in ((0.6, 0.5), None, 3, True)] == ["[0.6,0.5]", "None", "3", "True"]


def test_dry_run_prints_the_plan(tmp_path):
    done = commands.run("-m", "sspyr_mm", "reproduce", "s-d", "--dry-run", "--work-dir", tmp_path / "w")
    assert "tools/train.py" in done.stdout and "11 of 11 steps left" in done.stdout
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_costs_of_the_plan_are_the_operations_of_a_step():
    init_default_scope("mmpretrain")
    work = {method: step_flops(method_cost.build(method), 8) for method in method_cost.METHODS}
    costs = {system.folder: system.cost for system in find_table("S-A").systems if system.folder}
    assert costs == {method: pytest.approx(flops / work["mocov2"], rel=0.03) for method, flops in work.items()}


@pytest.mark.slow
def test_two_systems_are_trained_evaluated_and_not_repeated(tmp_path):
    names = ["SS-PRL, scale 0 alone", "SS-PRL, two scales"]
    arguments = ["S-C", "--epochs", 1, "--num-images", 200, "--jobs", 2, "--work-dir", tmp_path, "--methods", *names]
    first = commands.run("-m", "sspyr_mm", "reproduce", *arguments)
    assert re.search(r"\| SS-PRL, two scales +\| 79\.9 +\| ", first.stdout)
    rows = {row["system"]: row for row in csv.DictReader((tmp_path / "mini/table_S-C.csv").open())}
    assert all(0 < float(rows[name]["measured"]) < 100 for name in names)
    again = commands.run("-m", "sspyr_mm", "reproduce", *arguments)
    assert "0 of 5 steps left" in again.stdout
