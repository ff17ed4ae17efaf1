"""Results on disk and in tables."""

import argparse
import csv
import io
import json
import os
import re
from dataclasses import replace

import pytest

from sspyr_mm.benchmarks.results.result import Result, find_results, read_result, write_result
from sspyr_mm.benchmarks.results.rows import PUBLISHED, make_rows
from sspyr_mm.benchmarks.results.table import plot, to_csv, to_markdown
from sspyr_mm.cli import results as command


def result(**changes):
    base = Result(
        network="a.pth",
        protocol="linear",
        data="voc07",
        seed=0,
        metric="mAP",
        value=61.25,
        as_published=True,
        checkpoint={"sha256": "ab", "identity": "ef", "format": "swav", "path": "x/a.pth"},
        counts={"train": 5011, "test": 4952, "classes": 20},
        data_sha256="cd",
        settings={"epochs": 50, "seed": 0, "changed": {}},
        further={"CF1": 55.0},
        versions={"torch": "2"},
    )
    return replace(base, **changes)


def test_written_result_is_read_back(tmp_path):
    write_result(result(), tmp_path / "deep" / "result-1.json")
    assert read_result(tmp_path / "deep" / "result-1.json") == result()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["result-1.json"]


def test_results_of_version_0_2_are_read(tmp_path):
    written = result(further={"CF1": 55.0, "predictions": "a/final"})
    write_result(written, tmp_path / "result-1.json")
    text = (tmp_path / "result-1.json").read_text()
    (tmp_path / "result-1.json").write_text(
        text.replace('"further"', '"beside"').replace('"predictions"', '"pictures"')
    )
    assert read_result(tmp_path / "result-1.json") == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": True}, "value must be a percentage between 0 and 100, got True"),
        ({"value": float("nan")}, "between 0 and 100, got nan"),
        ({"value": float("inf")}, "between 0 and 100, got inf"),
        ({"value": 100.1}, "between 0 and 100, got 100.1"),
        ({"value": -0.1}, "between 0 and 100, got -0.1"),
        ({"value": "61"}, "between 0 and 100, got '61'"),
        ({"seed": True}, "seed must be of type int, got True"),
        ({"seed": "0"}, "seed must be of type int, got '0'"),
        ({"network": None}, "network must be of type str, got None"),
        ({"as_published": "yes"}, "as_published must be of type bool, got 'yes'"),
        ({"checkpoint": "ab"}, "checkpoint must be of type dict, got 'ab'"),
        ({"counts": {"train": "5"}}, "counts: train must be an integer >= 0, got '5'"),
        ({"settings": {"changed": 5}}, "changed must be of type dict, got 5"),
        ({"further": {"AP_per_class": [1.0]}}, "AP_per_class must be of type dict, got [1.0]"),
        ({"versions": []}, "versions must be of type dict, got []"),
        ({"versions": {"sspyr_mm": [1]}}, "sspyr_mm must be of type str, got [1]"),
        ({"checkpoint": {"sha256": [1]}}, "sha256 must be of type str, got [1]"),
        ({"checkpoint": {"sha256": "a", "identity": [1]}}, "identity must be of type str, got [1]"),
        ({"further": {"train_images": "x"}}, "train_images must be of type int, got 'x'"),
        ({"further": {"predictions": 5}}, "predictions must be of type str, got 5"),
    ],
)
def test_result_with_an_invalid_field_is_rejected(tmp_path, change, message):
    path = tmp_path / "result-1.json"
    write_result(result(**change), path)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_result(path)
    assert str(error.value).startswith(f"{path} is not a result of `evaluate`: ")


def test_hostile_file_is_rejected(tmp_path):
    (tmp_path / "result-1.json").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "result-2.json")
    for number, message in ((1, "is not a result of `evaluate`"), (2, "cannot be read: a pipe")):
        with pytest.raises(ValueError, match=message):
            read_result(tmp_path / f"result-{number}.json")


def test_bounds_of_the_value_are_accepted(tmp_path):
    for value in (0, 100, 100.00000000000001):
        write_result(result(value=value), tmp_path / "result-1.json")
        assert read_result(tmp_path / "result-1.json").value == value


def test_request_identifies_protocol_data_seed_labels_and_network():
    assert result().request == ("linear", "voc07", 0, "cd", "ef")
    assert result(value=1.0, network="renamed.pth", settings={}).request == result().request


def test_seeds_share_a_row_and_other_settings_do_not():
    rows = make_rows(
        [
            result(),
            result(seed=1, value=63.25, settings={"epochs": 50, "seed": 1, "changed": {}}),
            result(),  # the same run, found twice
            result(settings={"epochs": 5, "seed": 0, "changed": {"epochs": 5}}, value=40.0, as_published=False),
            result(network="b.pth", value=50.0),
        ],
        published=False,
    )
    assert [(r.network, r.text, r.kind) for r in rows] == [
        ("a.pth", "62.2 (61.2 to 63.2)", "measured"),
        ("a.pth", "40.0", "measured, other settings"),
        ("b.pth", "50.0", "measured"),
    ]
    assert rows[0].note == "seeds 0, 1; sha256 ab; 5,011 + 4,952 images"
    assert rows[1].note == "seed 0; sha256 ab; 5,011 + 4,952 images; epochs 5"


@pytest.mark.parametrize(
    "change",
    [
        {"versions": {"sspyr_mm": "9"}},
        {"data_sha256": "other labels"},
        {"checkpoint": {"sha256": "another file of the name"}},
    ],
)
def test_different_measurements_have_separate_rows(change):
    rows = make_rows([result(), result(value=70.0, **change)], published=False)
    assert sorted(row.text for row in rows) == ["61.2", "70.0"]


def test_two_values_of_one_seed_are_both_shown():
    (row,) = make_rows([result(), result(value=61.5)], published=False)
    assert row.values == (61.25, 61.5) and row.note.startswith("seeds 0, 0;")


def test_published_results_are_added_to_their_protocol_only():
    rows = make_rows([result()])
    published = [(r.network, r.value) for r in rows if r.kind == "published"]
    assert ("SS-PRL, two scales", 79.9) in published
    assert {r.data for r in rows} == {"voc07"}
    asl = make_rows([result(protocol="asl", data="coco14")])
    assert ("SS-PRL (COCO)", 69.3) in [(r.network, r.value) for r in asl]
    assert ("SS-PRL (ImageNet)", 73.8) in [(r.network, r.value) for r in asl]
    untrained = [f.protocol for f in PUBLISHED if f.network == "Random init"]
    assert sorted(untrained) == ["asl", "fcn_voc"]


@pytest.mark.parametrize(
    ("changed", "kind"), [({}, "measured, other data"), ({"size": 64}, "measured, other settings")]
)
def test_other_data_or_settings_have_no_published_results(changed, kind):
    rows = make_rows([result(as_published=False, settings={"changed": changed})])
    assert [row.kind for row in rows] == [kind]


def test_data_of_the_same_name_are_distinguished_by_labels():
    one, two = result(data_sha256="0123456789"), result(data_sha256="9876543210", value=50.0)
    notes = [row.note for row in make_rows([one, two], published=False)]
    assert [note.split("; ")[-1] for note in notes] == ["labels 01234567", "labels 98765432"]
    # Boxes and classes of the same images have other files, but are not two data sets.
    masks = replace(two, protocol="mask_rcnn_coco", metric="segm_mAP")
    assert not any("labels" in row.note for row in make_rows([one, masks], published=False))


def test_note_shows_the_number_of_averaged_classes():
    shown = {"cat": 10.0, "dog": None, "cow": 0.0}
    counts = {"train": 5011, "test": 4952, "classes": 3}
    (row,) = make_rows([result(further={"AP_per_class": shown}, counts=counts)], published=False)
    assert row.note.endswith("; 2 of 3 classes")
    shown["dog"] = 5.0
    (row,) = make_rows([result(further={"AP_per_class": shown}, counts=counts)], published=False)
    assert "classes" not in row.note


def test_note_shows_another_metric_unless_it_is_not_a_number():
    for value, shown in ((30.0, True), (None, False)):
        masks = result(protocol="mask_rcnn_coco", metric="segm_mAP", further={"bbox_mAP": value})
        (row,) = make_rows([masks], published=False)
        assert ("bbox_mAP 30.0" in row.note) is shown


def test_note_shows_the_number_of_training_images_used():
    (row,) = make_rows([result(protocol="semi1", further={"train_images": 50})], published=False)
    assert "; 50 of 5,011 + 4,952 images" in row.note
    (row,) = make_rows([result(protocol="asl", further={"train_images": 5011})], published=False)
    assert "; 5,011 + 4,952 images" in row.note


def test_rows_are_sorted_by_name_with_random_weights_last():
    names = ("random", "z.pth", "b.pth")
    results = [result(network=name) for name in names]
    results += [result(network=name, data="mine", as_published=False) for name in names]
    rows = make_rows(results)
    assert rows == make_rows([*results[2::-1], *results[:2:-1]])
    measured = [(r.data, r.network) for r in rows if r.kind != "published"]
    in_order = ("b.pth", "z.pth", "random")
    assert measured == [(data, name) for data in ("voc07", "mine") for name in in_order]
    assert [r.kind for r in rows[:4]] == ["measured"] * 3 + ["published"]


def test_seeds_are_in_order():
    (row,) = make_rows([result(seed=s, value=60.0 + s) for s in (2, 0, 1)], published=False)
    assert row.note.startswith("seeds 0, 1, 2;") and row.values == (60.0, 61.0, 62.0)


def test_new_and_read_results_share_a_row(tmp_path):
    changed = {"learning_rates": (0.1, 1.0)}
    now = result(settings={"changed": changed}, as_published=False)
    write_result(now, tmp_path / "result-1.json")
    read = read_result(tmp_path / "result-1.json")
    (row,) = make_rows([now, replace(read, seed=1)], published=False)
    assert row.note.endswith("; learning_rates 0.1, 1.0")
    assert [row.note] == [r.note for r in make_rows([read, replace(now, seed=1)], published=False)]


def test_markdown_escapes_bars_and_csv_holds_all_digits():
    rows = make_rows([result(network="a|b.pth")], published=False)
    lines = to_markdown(rows).splitlines()
    assert lines[0].startswith("| data ") and set(lines[1]) <= set("| -")
    assert "a\\|b.pth" in lines[2] and "| 61.2" in lines[2]
    (line,) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert line["value"] == "61.25" and line["network"] == "a|b.pth"


def test_plot_of_two_protocols(tmp_path):
    rows = make_rows([result(), result(seed=1, value=60), result(protocol="asl", data="coco14")])
    plot(rows, tmp_path / "table.svg")
    svg = (tmp_path / "table.svg").read_text()
    assert "<svg" in svg
    texts = re.findall(r"<!-- (.*?) -->", svg)
    # In the legend once, not at every bar.
    assert texts.count("measured") == texts.count("published") == 1
    assert texts.count("a.pth") == 2 and "SS-PRL (COCO)" in texts
    assert [p.name for p in tmp_path.iterdir()] == ["table.svg"]
    with pytest.raises(ValueError, match="No result to plot"):
        plot([], tmp_path / "none.svg")


def test_places_without_results_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        list(find_results([str(tmp_path / "none")]))
    with pytest.raises(ValueError, match=r"No result in .* writes result-\*\.json"):
        list(find_results([str(tmp_path)]))
    (tmp_path / "result-x.json").write_text(json.dumps({"value": 1}))
    with pytest.raises(ValueError, match=r"result-x\.json is not a result of `evaluate`"):
        list(find_results([str(tmp_path)]))


def test_command_writes_markdown_csv_and_plot(tmp_path, capsys):
    write_result(result(), tmp_path / "result-1.json")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    files = [tmp_path / name for name in ("t.md", "t.csv", "t.png")]
    options = [f"--{n}={f}" for n, f in zip(("markdown", "csv", "plot"), files, strict=True)]
    assert command.run(parser.parse_args([str(tmp_path), *options])) == 0
    assert capsys.readouterr().out == files[0].read_text()
    assert "published" in files[1].read_text()
    assert files[2].read_bytes().startswith(b"\x89PNG")
