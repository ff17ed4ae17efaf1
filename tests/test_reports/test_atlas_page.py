"""The page of an atlas in a real browser, opened from the disk."""

import json
import os
import re
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from atlas_of_colours import COLOURS
from browser_page import click_in_article, colour_at, find, wait_for
from PIL import Image

from sspyr_mm.__main__ import main
from sspyr_mm.files import folder_lock, new_files
from sspyr_mm.reports.atlas import atlas_page
from sspyr_mm.reports.atlas.atlas_map import ScaleMap
from sspyr_mm.reports.atlas.atlas_page import write_page
from sspyr_mm.reports.atlas.scale_atlas import ScaleAtlas


def data_of(page):
    text = (page.parent / "page/data.js").read_text()
    return json.loads(re.fullmatch(r"window\.ATLAS = (.*);\n", text, re.DOTALL)[1])


def test_sheets_show_the_cells_and_images(page, atlas_of_colours):
    (_, part), paths, _, colours = atlas_of_colours
    data = data_of(page)
    s1 = data["scales"][1]
    counts = np.bincount(colours.ravel(), minlength=6)
    assert [(p["id"], p["count"]) for p in s1["prototypes"]] == [
        (int(p), int(counts[p])) for p in np.argsort(-counts, kind="stable") if counts[p]
    ]
    sheet = np.asarray(Image.open(page.parent / s1["sheets"][0])).astype(int)
    assert sheet.shape == (4 * 64, 5 * 64, 3)
    for row, prototype in enumerate(s1["prototypes"]):
        for column, (image, *box, _, _) in enumerate(prototype["cells"]):
            tile = sheet[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
            assert abs(tile.mean((0, 1)) - COLOURS[prototype["id"]]).max() < 12
            original = Image.open(data["images"]["names"][image]).convert("RGB")
            left, top, right, bottom = np.multiply(box, [80, 60, 80, 60])
            assert original.getpixel(((left + right) // 2, (top + bottom) // 2)) == COLOURS[prototype["id"]]
        best = part.nearest(prototype["id"], 5)
        assert [cell[5] for cell in prototype["cells"]] == pytest.approx(part.score[best].tolist(), abs=1e-4)
    images = data["images"]
    place = images["names"].index(paths[4])
    y, x = divmod(place, images["columns"])
    sheet = Image.open(page.parent / images["sheets"][0])
    assert images["sizes"][place] == [192, 144]
    shown = sheet.getpixel((x * 192 + 144, y * 192 + 108))  # last quarter
    assert abs(np.subtract(shown, COLOURS[3])).max() < 12
    assert data["links"][0]["weights"][0][:2] == [[1, 0.5], [3, 0.25]]


def test_many_prototypes_and_images_have_several_sheets(tmp_path):
    paths = []
    for number in range(70):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (20, 20), (3 * number, 100, 0)).save(paths[-1])
    whole = np.tile([0, 0, 20, 20], (70, 1))
    atlas = [ScaleAtlas("s0", 1, 70, whole, np.arange(70), np.ones(70), np.ones(70))]
    page = write_page(tmp_path / "out", atlas, paths, {}, title="x", num_cells=1, num_workers=2)
    data = data_of(page)
    (scale,) = data["scales"]
    assert len(scale["sheets"]) == 3 and len(data["images"]["sheets"]) == 2
    for row in (0, 31, 32, 69):
        sheet = Image.open(page.parent / scale["sheets"][row // 32])
        assert sheet.getpixel((32, row % 32 * 64 + 32))[0] == pytest.approx(3 * scale["prototypes"][row]["id"], abs=9)
    last = Image.open(page.parent / data["images"]["sheets"][1])
    assert last.size == (8 * 192, 192) and last.getpixel((5 * 192 + 96, 96))[0] == pytest.approx(207, abs=9)


def replace_page(out, *arguments, title):
    with new_files(out) as new:
        write_page(new, *arguments, title=title)


def test_earlier_page_is_replaced_and_files_of_others_stay(atlas_of_colours, tmp_path):
    atlas, paths, weights, _ = atlas_of_colours
    (tmp_path / "mine.txt").write_text("mine")
    replace_page(tmp_path, atlas, paths, weights, title="one")
    left = tmp_path / "page/old.jpg"
    left.write_bytes(b"")
    replace_page(tmp_path, atlas[:1], paths, {}, title="two")
    assert not left.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "lock", "mine.txt", "page"]
    assert data_of(tmp_path / "index.html")["title"] == "two"


@pytest.mark.parametrize("name", ["index.html", "page/data.js", "page/thesis.tex"])
def test_page_of_another_program_stays(name, tmp_path, capsys):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert main(["atlas", "x.pth", "--images", ".", "-o", str(tmp_path)]) == 2
    assert "exists and is not of an atlas: give another folder" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_interrupted_page_is_replaced(atlas_of_colours, tmp_path, monkeypatch):
    atlas, paths, weights, _ = atlas_of_colours
    replace_page(tmp_path, atlas, paths, weights, title="one")
    left = tmp_path / "new.abc.partial"  # of a killed call
    left.mkdir()
    replace = os.replace

    def interrupted(source, target):
        replace(source, target)
        if Path(target).parent.name == "earlier":
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_page(tmp_path, atlas, paths, weights, title="two")
    monkeypatch.undo()
    replace_page(tmp_path, atlas, paths, weights, title="three")
    assert data_of(tmp_path / "index.html")["title"] == "three"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index.html", "lock", "page"]


def test_failure_leaves_the_earlier_page(atlas_of_colours, tmp_path):
    atlas, paths, weights, _ = atlas_of_colours
    replace_page(tmp_path, atlas, paths, weights, title="one")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        replace_page(tmp_path, atlas, [*paths[:9], str(tmp_path / "broken.png")], weights, title="two")
    assert data_of(tmp_path / "index.html")["title"] == "one"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broken.png", "index.html", "lock", "page"]


def test_failed_command_leaves_all_earlier_files(checkpoint, atlas_of_colours, tmp_path, capsys):
    images = tmp_path / "images"
    shutil.copytree(os.path.dirname(atlas_of_colours[1][0]), images)
    line = ["atlas", str(checkpoint), "--images", str(images), "-o", str(tmp_path / "out"), "--points", "9"]
    assert main([*line, "--workers", "0"]) == 0

    def fail(*_):
        raise OSError("full")

    def contents():
        return {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}

    before = contents()
    names = {"atlas.parquet", "figure.pdf", "figure.png", "index.html", "embeddings.pth", "map_s1.js", "data.js"}
    assert names < {file.name for file in before}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sspyr_mm.reports.atlas.atlas_server.torch.save", fail)
        assert main([*line, "--workers", "0", "--rows", "2"]) == 2
    assert "full" in capsys.readouterr().err
    assert contents() == before
    with folder_lock(tmp_path / "out"):
        assert main([*line, "--workers", "0"]) == 2
    found = capsys.readouterr()
    assert "Another command" in found.err and "assigning" not in found.out
    (tmp_path / "file").write_text("")
    assert main([*line[:5], str(tmp_path / "file")]) == 2
    assert "file cannot be written to (File exists): give another one" in capsys.readouterr().err


def test_prototypes_of_a_scale_are_shown(browser, atlas_of_colours, tmp_path):
    assert browser.title == "Prototypes of net <i>.pth" == find(browser, "h1")[0].text
    assert find(browser, "#summary")[0].text == "s0: 2 of 3 prototypes used by 10 cells of 10 images"
    find(browser, "[role=tab]")[1].click()
    _, _, _, colours = atlas_of_colours
    counts = np.bincount(colours.ravel(), minlength=6)
    order = [int(p) for p in np.argsort(-counts, kind="stable") if counts[p]]
    assert [card.get_attribute("id") for card in find(browser, "article")] == [f"s1-{p}" for p in order]
    share = f"{counts[order[0]]} cells, {100 * counts[order[0]] / 40:.1f} %"
    assert [tab.text for tab in find(browser, "[role=tab]")] == ["s0: whole images", "s1: 2 x 2 cells"]
    assert share in find(browser, "article h2")[0].text
    for prototype in (order[0], 3):
        tiles = find(browser, f"#s1-{prototype} .cells button")
        assert len(tiles) == min(5, len({image for image, cell in np.argwhere(colours == prototype)}))
        wait_for(lambda tile=tiles[-1]: "jpg" in tile.value_of_css_property("background-image"))
        wait_for(lambda t=tiles[-1], p=prototype: abs(colour_at(browser, t, tmp_path) - COLOURS[p]).max() < 15)


def test_click_on_a_cell_marks_it_in_its_image(browser, atlas_of_colours, tmp_path):
    from selenium.webdriver.common.keys import Keys

    _, paths, _, _ = atlas_of_colours
    find(browser, "[role=tab]")[1].click()
    click_in_article(browser, "#s1-3 .cells button")
    assert find(browser, "dialog[open]") and find(browser, "#source-name")[0].text == paths[4]
    assert "Prototype 3 of s1: cosine 0.7051, margin 0.0705" in find(browser, "#source-facts")[0].text
    box, image = find(browser, "#source-box")[0].rect, find(browser, "#source-image")[0].rect
    assert (image["width"], image["height"]) == (384, 288)
    place = [box["x"] - image["x"], box["y"] - image["y"], box["width"], box["height"]]
    assert place == pytest.approx([192, 144, 192, 144], abs=1)
    wait_for(lambda: abs(colour_at(browser, find(browser, "#source-box")[0], tmp_path) - COLOURS[3]).max() < 15)
    find(browser, "dialog form button")[0].click()
    assert not find(browser, "dialog[open]")
    click_in_article(browser, "article .cells button")
    before = find(browser, "#source-name")[0].text
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert find(browser, "#source-name")[0].text != before
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait_for(lambda: not find(browser, "dialog[open]"))


def test_links_lead_to_prototypes_of_the_other_scale(browser):
    links = find(browser, "#s0-0 .links a")
    assert [link.text for link in links] == ["1 (0.5)", "3 (0.25)"]  # 5 has no cells
    click_in_article(browser, "#s0-0 .links a:nth-of-type(2)")
    wait_for(lambda: find(browser, "#s1-3.marked"))  # the event of a new address comes after the click
    assert browser.current_url.endswith("#s1-3") and find(browser, "[aria-selected=true]")[0].text == "s1: 2 x 2 cells"
    assert find(browser, "#s1-3 .links")[0].text.startswith("part of s0 (weight):")
    find(browser, "[role=tab]")[0].click()
    click_in_article(browser, "#s0-0 .links a:nth-of-type(2)")  # the address is the same
    assert find(browser, "[aria-selected=true]")[0].text == "s1: 2 x 2 cells" and find(browser, "#s1-3.marked")


@pytest.mark.parametrize(("text", "found"), [("2", ["s1-2"]), ("4, <B>Ü", None), ("missing", [])])
def test_search_finds_numbers_and_file_names(text, found, browser, atlas_of_colours):
    find(browser, "[role=tab]")[1].click()
    find(browser, "#find")[0].send_keys(text)
    shown = [card.get_attribute("id") for card in find(browser, "article")]
    assert shown == found if found is not None else "s1-3" in shown
    assert f"{len(shown)} found" in find(browser, "#summary")[0].text


def test_order_and_keyboard(browser):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    tab = find(browser, "[role=tab]")[0]
    tab.send_keys(Keys.ARROW_RIGHT)
    assert find(browser, "[aria-selected=true]")[0].text == "s1: 2 x 2 cells"
    Select(find(browser, "#order")[0]).select_by_value("id")
    assert [card.get_attribute("id") for card in find(browser, "article")] == ["s1-0", "s1-1", "s1-2", "s1-3"]


def test_phone_width_has_no_horizontal_scrolling(browser):
    browser.set_window_size(500, 800)  # the least that Chromium allows
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", dict(width=360, height=700, deviceScaleFactor=1, mobile=True)
    )
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_assets_are_packaged():
    package = Path(atlas_page.__file__).parent / "site"
    assert {file.name for file in package.iterdir()} == {"index.html", *atlas_page._COPIED}


@pytest.mark.slow  # a minute; prints the figures of docs/atlas.md
def test_large_atlas_is_bounded_in_memory(tmp_path, open_browser):
    """120,000 images, 3,000 prototypes of images and 1,500 of their 9 cells."""
    files = []
    rng = np.random.default_rng(0)
    for number in range(500):
        pixels = rng.integers(0, 256, (6, 8, 3), np.uint8)
        files.append(str(tmp_path / f"{number}.jpg"))
        Image.fromarray(pixels).resize((320, 240)).save(files[-1])
    paths = files * 240
    boxes = np.array([[x, y, x + 80, y + 60] for y in (0, 60, 120) for x in (0, 80, 160)], np.float32)
    scores = rng.random(9 * len(paths), np.float32)
    atlas = [
        ScaleAtlas(
            "s0",
            1,
            3000,
            np.tile(boxes[:1] * 3, (len(paths), 1)),
            rng.integers(0, 3000, len(paths)),
            scores[: len(paths)],
            scores,
        ),
        ScaleAtlas("s1", 9, 1500, np.tile(boxes, (len(paths), 1)), rng.integers(0, 1500, len(scores)), scores, scores),
    ]
    weights = {"s1": rng.random((3000, 1500), np.float32)}
    maps = {}
    for part in atlas:
        rows = np.sort(rng.permutation(len(paths))[: 10_000 // part.num_cells])[:, None] * part.num_cells
        rows = (rows + np.arange(part.num_cells)).ravel()
        maps[part.scale] = ScaleMap(rows, rng.uniform(-1, 1, (len(rows), 2)).astype(np.float32), rows[:, None])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    page = write_page(tmp_path / "out", atlas, paths, weights, title="large", maps=maps, num_workers=2)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = sum(file.stat().st_size for file in page.parent.rglob("*") if file.is_file()) / 1e6
    took = time.perf_counter() - start
    start = time.perf_counter()
    open_browser.get(page.as_uri())
    wait_for(lambda: "jpg" in find(open_browser, ".cells button")[0].value_of_css_property("background-image"))
    loaded = time.perf_counter() - start
    start = time.perf_counter()
    find(open_browser, "#view-map")[0].click()
    wait_for(lambda: find(open_browser, "#summary")[0].text.startswith("s0: 10000 cells on the map"))
    drawn = time.perf_counter() - start
    print(f"{took:.0f} s, {grown:.0f} MiB more memory, {size:.0f} MB on disk")
    print(f"page interactive after {loaded:.1f} s, map of 10,000 points after {drawn:.1f} s")
    find(open_browser, "#view-prototypes")[0].click()
    assert len(find(open_browser, "article")) == 50
    open_browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    wait_for(lambda: len(find(open_browser, "article")) >= 100)
    last = data_of(page)["scales"][1]["prototypes"][-1]["id"]
    open_browser.get(f"{page.as_uri()}#s1-{last}")
    wait_for(lambda: find(open_browser, f"#s1-{last}.marked"))
    assert len(find(open_browser, "article")) == 1500
    assert grown < 1500
