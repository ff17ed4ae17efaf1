"""The report of real runs: what their logs and health say, and nothing of the texts is executed."""

import base64
import json
import re
import shutil
import urllib.parse
from html.parser import HTMLParser

import pytest
from small_runs import train

from sspyr_mm.__main__ import main
from sspyr_mm.reports import run_report
from sspyr_mm.reports.run_report import _add, write_report

HEALTH = {"default_hooks.health": {"type": "HealthHook", "interval": 1, "patience": 2, "table_interval": 5}}


class Page(HTMLParser):
    """Texts of table cells, alternative texts and sources of images, preformatted texts, and links."""

    def __init__(self, path):
        super().__init__()
        self.cells, self.images, self.code, self.links, self._open = [], {}, [], [], None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images[attributes["alt"]] = attributes["src"]
        if tag == "a":
            self.links.append(attributes["href"])
        if tag in ("td", "th", "pre"):
            self._open = tag
            (self.code if tag == "pre" else self.cells).append("")

    def handle_endtag(self, tag):
        if tag == self._open:
            self._open = None

    def handle_data(self, data):
        if self._open:
            (self.code if self._open == "pre" else self.cells)[-1] += data


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """A run, and one with another learning rate whose codes are uniform."""
    folder = tmp_path_factory.mktemp("runs")
    train(config, folder / "one", HEALTH)
    stuck = {"model.head.assigner.epsilon": 50.0, "model.head.temperature": 10.0}
    train(config, folder / "two", {**HEALTH, **stuck, "optim_wrapper.optimizer.lr": 0.007})
    return folder


def test_page_shows_curves_health_and_settings(runs, capsys):
    (runs / "one/atlas").mkdir(exist_ok=True)
    (runs / "one/atlas/index.html").write_text("")
    assert main(["report", str(runs / "one")]) == 0
    assert capsys.readouterr().out.strip() == str(runs / "one/report.html")
    page = Page(runs / "one/report.html")
    assert list(page.images)[:2] == ["loss by iteration", "ratio by iteration"]
    assert {"deviation by iteration", "rank by iteration", "lr by iteration"} <= page.images.keys()
    kind, _, content = page.images.pop("Views of one").partition(",")
    assert kind == "data:image/jpeg;base64" and base64.b64decode(content) == (runs / "one/views.jpg").read_bytes()
    for source in page.images.values():
        kind, _, content = source.partition(",")
        assert kind == "data:image/svg+xml;base64" and b"<svg" in base64.b64decode(content)
    (log,) = runs.glob("one/*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    loss = [row["loss"] for row in rows if "loss" in row][-1]
    header = page.cells.index("run")
    assert page.cells[header + 1 : header + 3] == ["iterations", "loss"]
    assert f"{loss:.4g}" in page.cells and "15" in page.cells and "one (atlas)" in page.cells
    health = json.loads((runs / "one/health.json").read_text())
    assert health["iteration"] == 15 and set(health["lines"]) == {"s0", "s1", "features", "step"}
    for name, line in health["lines"].items():
        assert page.cells[page.cells.index(name) + 1] == line["verdict"]
    assert page.links == ["atlas/index.html"]
    assert "Python" in page.cells and any("AdamW" in text for text in page.code)


def test_runs_are_compared(runs, tmp_path):
    write_report([runs / "one", runs / "two"], tmp_path / "both.html")
    page = Page(tmp_path / "both.html")
    assert "broken, stuck" in page.cells and "codes of s0 are uniform" in (tmp_path / "both.html").read_text()
    (difference, *_) = page.code
    assert "+" in difference and re.search(r"^\+.*lr=0\.007", difference, re.MULTILINE)
    drawn = base64.b64decode(page.images["loss by iteration"].partition(",")[2]).decode()
    assert ">one loss</text>" in drawn and ">two loss</text>" in drawn and "health" not in drawn  # legend


def test_resumed_run_replaces_the_iterations_since_its_checkpoint(tmp_path):
    curves = {}
    for name, rows in (("a", [(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0)]), ("b", [(3, 1.0), (4, 2.0)])):
        lines = [json.dumps({"loss": x, name: x, "step": n}) for n, x in rows]
        (tmp_path / name).write_text("\n".join(lines) + '\n{"lo')
        _add(curves, tmp_path / name)
    assert curves == {"loss": {1: 9.0, 2: 8.0, 3: 1.0, 4: 2.0}, "a": {1: 9.0, 2: 8.0, 3: 7.0}, "b": {3: 1.0, 4: 2.0}}
    (tmp_path / "c").write_text('{"loss": 5.0, "step": 1}\n')
    _add(curves, tmp_path / "c")  # a new run in the same folder
    assert curves == {"loss": {1: 5.0}}


def test_texts_of_a_run_are_not_markup(runs, tmp_path):
    copy = tmp_path / "<b>run"
    shutil.copytree(runs / "one", copy)
    (config,) = copy.glob("*/vis_data/config.py")
    config.write_text("x = '</pre><script>alert(1)</script>'")
    write_report([copy], tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    assert "<script" not in text and "<b>" not in text and "&lt;script&gt;alert(1)" in text


def test_link_to_an_atlas_leads_to_a_file_only(runs, tmp_path, monkeypatch):
    names = ["javascript:alert(1)", "lr#1 50%?"]
    for name in names:
        shutil.copytree(runs / "one", tmp_path / name)
        (tmp_path / name / "atlas").mkdir(exist_ok=True)
        (tmp_path / name / "atlas/index.html").write_text("")
    monkeypatch.chdir(tmp_path)
    write_report(names, "out.html")
    links = Page(tmp_path / "out.html").links
    assert all(urllib.parse.urlsplit(link)[:2] == ("", "") for link in links)
    assert [urllib.parse.unquote(urllib.parse.urlsplit(link).path) for link in links] == [
        f"{n}/atlas/index.html" for n in names
    ]


def test_unusual_names_and_values_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "_MOST_PLOTS", 5)
    log = tmp_path / "run/20260101_000000/vis_data/scalars.json"
    log.parent.mkdir(parents=True)
    rows = [
        {"step": step, "a $\\frac$": 1.0, "far": value, **{f"m{i}": 1.0 for i in range(10)}}
        for step, value in [(1, 2.0), (2, 1e308), (3, -1e308)]
    ]
    log.write_text("\n".join(map(json.dumps, rows)))
    write_report([tmp_path / "run"], tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    assert text.count("<img") == 5 and "7 more measures are not drawn" in text
    (address,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)" alt="far', text)
    assert ">far</text>" in base64.b64decode(address).decode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(next(run.glob("*/vis_data"))), "holds no log of training"),
        (lambda run: next(run.glob("*/vis_data/scalars.json")).write_text(""), "has no logged iteration yet"),
        (lambda run: (run / "health.json").write_text("[1]"), r"health\.json is damaged \(.*\): remove it"),
        (lambda run: (run / "health.json").write_text("[" * 100_000), r"health\.json is damaged"),
        (lambda run: (run / "health.json").write_text('{"iteration": 1, "lines": {}}'), r"damaged \(it has no line"),
        *(
            (lambda run, line=line: _prepend(next(run.glob("*/vis_data/scalars.json")), line), "line 1 is damaged")
            for line in (
                *("[]", '{"step": 1e400, "loss": 1}', '{"step": 1e300, "loss": 1}'),
                '{"step": 1, "loss": 1' + "0" * 400 + "}",
            )
        ),
    ],
)
def test_damaged_run_is_reported(damage, message, runs, tmp_path, capsys):
    shutil.copytree(runs / "one", tmp_path / "run")
    damage(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "out.html")]) == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "out.html").exists()


def _prepend(log, line):
    log.write_text(f"{line}\n{log.read_text()}")


def test_missing_folder_is_reported(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "is not a folder: give the work dir of a run" in capsys.readouterr().err and not any(tmp_path.iterdir())
