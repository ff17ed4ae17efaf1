"""The map of an atlas: places and neighbours of cells, its columns in the table, and its view in a real browser."""

import importlib.util
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from atlas_of_colours import COLOURS, make_maps
from browser_page import click_in_article, colour_at, find, wait_for
from PIL import Image, ImageOps
from project import ROOT
from torch.nn import functional as F

from sspyr_mm.__main__ import main
from sspyr_mm.checkpoints import load_pretraining
from sspyr_mm.reports.atlas.atlas_files import write_table
from sspyr_mm.reports.atlas.atlas_map import compute_map
from sspyr_mm.reports.atlas.scale_atlas import ScaleAtlas, cut_cells, measure_atlas


def part_of(embedding):
    """An atlas of a scale of one cell per image, whose embeddings are of every second image."""
    count = 2 * len(embedding)
    zeros = np.zeros(count)
    rows = np.arange(0, count, 2)
    return ScaleAtlas("s0", 1, 1, np.zeros((count, 4)), zeros.astype(int), zeros, zeros, rows, embedding)


def test_clusters_stay_together_and_neighbours_are_exact():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 90)
    z = (rng.normal(size=(3, 16))[label] + 0.1 * rng.normal(size=(90, 16))).astype(np.float32)
    part = part_of(z.copy())
    found = compute_map(part)
    assert np.array_equal(part.embedding, z)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    assert (found.neighbours == 2 * np.argsort(-cosine, axis=1)[:, :14]).mean() > 0.99  # but for ties of rounding
    assert (found.rows == part.mapped).all()
    span = found.place.max(axis=0) - found.place.min(axis=0)
    assert span.max() == pytest.approx(2, abs=1e-4) and abs(found.place).max() <= 1 + 1e-4
    centres = np.stack([found.place[label == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(found.place[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == label).all()
    assert np.array_equal(compute_map(part).place, found.place)


@pytest.mark.parametrize("count", [0, 4, 5, 6])
def test_few_cells(count):
    found = compute_map(part_of(np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)))
    assert (found is None) == (count < 5)
    if found is not None:
        assert np.isfinite(found.place).all() and found.neighbours.shape == (count, count - 2)


def test_equal_embeddings_have_finite_places():
    found = compute_map(part_of(np.ones((40, 8), np.float32)))
    assert np.isfinite(found.place).all()
    assert all(row not in others for row, others in zip(found.rows, found.neighbours, strict=True))


@pytest.fixture(scope="module")
def network(checkpoint):
    return checkpoint, load_pretraining(str(checkpoint))[1]


def test_kept_embeddings_are_those_of_the_plain_network(network, atlas_of_colours):
    _, model = network
    _, paths, _, _ = atlas_of_colours
    parts = measure_atlas(model, paths, num_mapped=6, batch_size=4)
    mapped_images = []
    for part, scale in zip(parts, model.pyramid.scales, strict=True):
        images = part.image_of(part.mapped)
        mapped_images.append(set(images.tolist()))
        assert len(part.mapped) == 6 // scale.num_patches * scale.num_patches
        patches = np.concatenate(
            [
                cut_cells(np.asarray(ImageOps.exif_transpose(Image.open(paths[i]))), scale)[0]
                for i in sorted(set(images))
            ]
        )
        inputs = model.data_preprocessor({"inputs": F.pad(_tensor(patches), (0, 0))})["inputs"]
        expected = F.normalize(model.neck(model.encode(inputs), scale.name), dim=1).detach().numpy()
        assert np.allclose(part.embedding, expected, atol=1e-5)
    assert mapped_images[1] < mapped_images[0]


def _tensor(patches):
    import torch

    return torch.from_numpy(patches).permute(0, 3, 1, 2)


def test_table_has_places_neighbours_and_thumbnails(atlas_of_colours, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    atlas, paths, _, colours = atlas_of_colours
    maps = make_maps(colours)
    write_table(tmp_path / "t.parquet", atlas, paths, maps)
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert all(row[name] is None for row in rows[:10] + rows[46:] for name in ("x", "y", "neighbours", "thumbnail"))
    for number in range(36):
        row = rows[10 + number]
        assert [row["x"], row["y"]] == maps["s1"].place[number].tolist()
        assert row["neighbours"] == [10 + (number + 1) % 36, 10 + (number + 2) % 36]
        tile = np.asarray(Image.open(io.BytesIO(row["thumbnail"]))).astype(int)
        assert tile.shape == (64, 64, 3) and abs(tile.mean((0, 1)) - COLOURS[colours.ravel()[number]]).max() < 8
    write_table(tmp_path / "none.parquet", atlas, paths)
    assert parquet.read_schema(tmp_path / "none.parquet") == parquet.read_schema(tmp_path / "t.parquet")


def test_command_writes_the_map(network, atlas_of_colours, tmp_path):
    checkpoint, _ = network
    _, paths, _, _ = atlas_of_colours
    images = paths[0].rpartition("/")[0]
    line = ["atlas", str(checkpoint), "--images", images, "-o", str(tmp_path), "--workers", "0"]
    assert main([*line, "--points", "9"]) == 0
    text = (tmp_path / "page/map_s0.js").read_text()
    assert re.match(r'window\.ATLAS\.points\["s0"\] = \{"x":\[(-?[\d.]+,){8}-?[\d.]+\]', text)
    assert main([*line, "--points", "0"]) == 0
    assert not list(tmp_path.glob("page/map_*"))


def test_threads_of_torch_stay(network, atlas_of_colours, tmp_path):
    """In a process of its own: libraries start their threads once."""
    code = """
import sys
import torch
from sspyr_mm.__main__ import main
torch.set_num_threads(1)
assert main(sys.argv[1:]) == 0
print("threads", torch.get_num_threads())
"""
    images = atlas_of_colours[1][0].rpartition("/")[0]
    line = ["atlas", str(network[0]), "--images", images, "-o", str(tmp_path), "--workers", "0", "--points", "9"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *line], env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("\nthreads 1\n"), done.stderr


def test_missing_library_is_reported(network, tmp_path, monkeypatch, capsys):
    actual = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "umap" else actual(name, *rest))
    assert main(["atlas", str(network[0]), "--images", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "needs UMAP: pip install '.[features]', or give --points 0" in capsys.readouterr().err


@pytest.fixture
def map_of(browser, page):
    def start(hash_="#map-s1"):
        browser.get("about:blank")
        browser.get(page.as_uri() + hash_)
        wait_for(lambda: " cells " in find(browser, "#summary")[0].text)
        return browser

    return start


def drag_around(browser, corner):
    """Draws a rectangle around a corner of the map, (-1 or 1, -1 or 1)."""
    from selenium.webdriver import ActionChains

    (canvas,) = find(browser, "#map-canvas")
    half = min(canvas.size["width"], canvas.size["height"]) // 2
    x, y = (round(sign * half * 0.1) for sign in (corner[0], -corner[1]))
    far = (round(corner[0] * half * 0.9), round(-corner[1] * half * 0.9))
    actions = ActionChains(browser, duration=20).move_to_element_with_offset(canvas, x, y).click_and_hold()
    for to in ((far[0], y), far, (x, far[1]), (x, y + (far[1] - y) // 8)):
        for share in (0.25, 0.5, 0.75, 1):
            actions.move_to_element_with_offset(
                canvas, *(round(a + share * (b - a)) for a, b in zip((x, y), to, strict=True))
            )
        x, y = to
    actions.release().perform()


def test_lasso_selects_the_cells_inside(map_of, atlas_of_colours, tmp_path):
    browser = map_of()
    _, paths, _, colours = atlas_of_colours
    hint = "coloured by prototype; cells close together have similar embeddings"
    assert find(browser, "#summary")[0].text == f"s1: 36 cells on the map, {hint}"
    find(browser, "#map-lasso")[0].click()
    drag_around(browser, (1, 1))
    expected = np.flatnonzero(colours.ravel()[:36] == 1)
    wait_for(lambda: find(browser, "#summary")[0].text == f"s1: {len(expected)} of 36 cells selected")
    tiles = find(browser, "#map-cells button")
    assert sorted(tile.get_attribute("title") for tile in tiles) == sorted(paths[row // 4] for row in expected)
    wait_for(lambda: abs(colour_at(browser, tiles[-1], tmp_path) - COLOURS[1]).max() < 15)
    find(browser, "#map-clear")[0].click()
    assert find(browser, "#map-cells button") == []


def test_selected_cells_are_ordered_by_prototype_and_cosine(map_of, atlas_of_colours):
    browser = map_of()
    scales, paths, _, colours = atlas_of_colours
    find(browser, "#find")[0].send_keys("<b>ü")
    wait_for(lambda: find(browser, "#summary")[0].text == "s1: 36 of 36 cells selected")
    shown = [tile.get_attribute("title") for tile in find(browser, "#map-cells button")]
    prototype = colours.ravel()[:36]
    expected = np.lexsort((-scales[1].score[:36], prototype, -np.bincount(prototype)[prototype]))
    assert shown == [paths[row // 4] for row in expected] != sorted(shown)


def test_pointer_on_a_point_shows_its_cell_and_the_reverse(map_of, atlas_of_colours, tmp_path):
    from selenium.webdriver import ActionChains

    browser = map_of()
    (canvas,) = find(browser, "#map-canvas")
    x, y = browser.execute_script(
        "return window.atlasMap.getScreenPosition(19)"
    )  # image 4, cell 3: alone in its corner
    half = (canvas.size["width"] / 2, canvas.size["height"] / 2)
    ActionChains(browser).move_to_element_with_offset(canvas, round(x - half[0]), round(y - half[1])).perform()
    wait_for(lambda: find(browser, "#map-hover")[0].is_displayed())
    assert find(browser, "#map-hover")[0].text == "prototype 3"
    wait_for(lambda: abs(colour_at(browser, find(browser, "#map-hover .tile")[0], tmp_path) - COLOURS[3]).max() < 15)
    find(browser, "#find")[0].send_keys("3")
    wait_for(lambda: find(browser, "#summary")[0].text == "s1: 1 of 36 cells selected")
    (tile,) = find(browser, "#map-cells button")
    ActionChains(browser).move_to_element(tile).perform()
    wait_for(lambda: browser.execute_script("return window.atlasMap.get('hoveredPoint')") == 19)
    tile.click()
    assert find(browser, "#source-name")[0].text == atlas_of_colours[1][4]
    assert find(browser, "#source-facts")[0].text.startswith("Prototype 3 of s1: cosine 0.7051")
    find(browser, "#source-prototype")[0].click()
    wait_for(lambda: find(browser, "#s1-3.marked") and find(browser, "#view-prototypes[aria-pressed=true]"))


def touch(browser, kind, *places):
    points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def test_fingers_select_move_and_zoom(map_of, atlas_of_colours):
    browser = map_of()
    (canvas,) = find(browser, "#map-canvas")
    left, top, width, height = browser.execute_script(
        "const box = arguments[0].getBoundingClientRect(); return [box.left, box.top, box.width, box.height]", canvas
    )

    def place_of(row):
        x, y = browser.execute_script(f"return window.atlasMap.getScreenPosition({row})")
        return left + x, top + y

    place = place_of(19)
    touch(browser, "touchStart", place)
    touch(browser, "touchEnd")
    wait_for(lambda: find(browser, "#summary")[0].text == "s1: 1 of 36 cells selected")
    assert find(browser, "#map-hover")[0].text == "prototype 3"

    touch(browser, "touchStart", place)
    touch(browser, "touchMove", (place[0] + 40, place[1] + 30))
    touch(browser, "touchEnd")
    wait_for(lambda: np.allclose(place_of(19), (place[0] + 40, place[1] + 30), atol=3))

    span = np.subtract(place_of(19), place_of(0))
    x, y = left + width / 2, top + height / 2
    touch(browser, "touchStart", (x - 20, y), (x + 20, y))
    for half in (30, 40, 50, 60):
        touch(browser, "touchMove", (x - half, y), (x + half, y))
    touch(browser, "touchEnd")
    wait_for(lambda: (np.abs(np.subtract(place_of(19), place_of(0))) > 1.2 * np.abs(span)).all())

    find(browser, "#map-fit")[0].click()
    find(browser, "#map-lasso")[0].click()
    half = min(width, height) / 2
    corners = [
        (0.1, 0.1),
        (0.5, 0.1),
        (0.9, 0.1),
        (0.9, 0.5),
        (0.9, 0.9),
        (0.5, 0.9),
        (0.1, 0.9),
        (0.1, 0.5),
        (0.1, 0.2),
    ]
    wait_for(lambda: np.allclose(place_of(19), place, atol=3))
    for number, (right, up) in enumerate(corners):
        touch(browser, "touchMove" if number else "touchStart", (x + half * right, y - half * up))
    touch(browser, "touchEnd")
    expected = int((atlas_of_colours[3].ravel()[:36] == 1).sum())
    wait_for(lambda: find(browser, "#summary")[0].text == f"s1: {expected} of 36 cells selected")


def test_legend_has_the_colours_of_the_points_and_selects(map_of, atlas_of_colours, tmp_path):
    browser = map_of()
    entries = find(browser, "#map-legend button")
    count = np.bincount(atlas_of_colours[3].ravel())
    assert [entry.text for entry in entries] == [str(p) for p in np.argsort(-count, kind="stable") if count[p]]
    entry = next(entry for entry in entries if entry.text == "3")
    (mark,) = entry.find_elements("css selector", ".mark")
    shown = browser.execute_script("return getComputedStyle(arguments[0]).backgroundColor", mark)
    palette = browser.execute_script("return window.atlasMap.get('pointColor')")
    expected = np.round(255 * np.array(palette[3][:3])).astype(int)
    assert [int(x) for x in re.findall(r"\d+", shown)] == expected.tolist()
    entry.click()
    wait_for(lambda: find(browser, "#summary")[0].text == "s1: 1 of 36 cells selected")


def test_search_selects_on_the_map(map_of, atlas_of_colours):
    browser = map_of()
    find(browser, "#find")[0].send_keys("4, <B>Ü")
    wait_for(lambda: find(browser, "#summary")[0].text == "s1: 4 of 36 cells selected")
    find(browser, "#find")[0].send_keys("missing")
    wait_for(lambda: find(browser, "#summary")[0].text.endswith("; 0 found"))
    map_of("#map-s1-2")
    count = int((atlas_of_colours[3].ravel()[:36] == 2).sum())
    wait_for(lambda: find(browser, "#summary")[0].text == f"s1: {count} of 36 cells selected")


def test_views_change_by_buttons_and_scales_without_a_map_have_none(browser):
    assert find(browser, "#view-map")[0].is_enabled() is False
    find(browser, "[role=tab]")[1].click()
    find(browser, "#view-map")[0].click()
    wait_for(lambda: find(browser, "#map")[0].is_displayed())
    assert not find(browser, "#ordering")[0].is_displayed() and not find(browser, "article")
    find(browser, "[role=tab]")[0].click()
    assert find(browser, "article") and not find(browser, "#map")[0].is_displayed()
    find(browser, "[role=tab]")[1].click()
    click_in_article(browser, "#s1-3 h2 a")
    wait_for(lambda: find(browser, "#summary")[0].text == "s1: 1 of 36 cells selected")


def test_missing_file_of_the_map_is_reported(browser, page):
    browser.get("about:blank")
    points = page.parent / "page/map_s1.js"
    hidden = points.rename(points.with_suffix(".away"))
    try:
        browser.get(page.as_uri() + "#map-s1")
        wait_for(lambda: find(browser, "#map-message")[0].is_displayed())
        assert "map_s1.js" in find(browser, "#map-message")[0].text
    finally:
        hidden.rename(points)
        browser.get_log("browser")  # has the missing file


def test_last_search_is_shown_while_maps_are_drawn(browser, page, atlas_of_colours):
    """Searches and scales change faster than maps are drawn."""
    browser.get("about:blank")
    browser.get(page.as_uri() + "#map-s1")
    browser.execute_script(
        """const field = document.getElementById("find");
        for (const text of ["png", "4, <b>ü", "3"]) {
          field.value = text;
          field.dispatchEvent(new Event("input"));
          document.getElementById("view-prototypes").click();
          document.getElementById("view-map").click();
        }"""
    )
    wait_for(lambda: find(browser, "#summary")[0].text == "s1: 1 of 36 cells selected")
    assert len(find(browser, "#map-cells button")) == 1
    assert browser.execute_script("return document.querySelectorAll('script[src*=scatterplot]').length") == 1


def test_clear_without_a_map_does_nothing(browser, page):
    points = page.parent / "page/map_s1.js"
    hidden = points.rename(points.with_suffix(".away"))
    try:
        browser.get("about:blank")
        browser.get(page.as_uri() + "#map-s1")
        wait_for(lambda: find(browser, "#map-message")[0].is_displayed())
        browser.get_log("browser")  # has the missing file
        find(browser, "#map-clear")[0].click()
        assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    finally:
        hidden.rename(points)
    find(browser, "#view-prototypes")[0].click()
    find(browser, "#view-map")[0].click()
    wait_for(lambda: find(browser, "#summary")[0].text.startswith("s1: 36 cells on the map"))
    assert not find(browser, "#map-message")[0].is_displayed()
