"""An atlas of coloured images, its page, and a browser."""

import pytest
from atlas_of_colours import make_atlas, make_maps
from browser_page import start_browser
from pretrained_files import NARROW, pretrain

from sspyr_mm.reports.atlas.atlas_page import write_page


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "c.pth"
    pretrain(path, NARROW, 64)
    return path


@pytest.fixture(scope="module")
def atlas_of_colours(tmp_path_factory):
    return make_atlas(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def page(atlas_of_colours, tmp_path_factory):
    atlas, paths, weights, colours = atlas_of_colours
    maps = make_maps(colours)
    out = tmp_path_factory.mktemp("out")
    return write_page(out, atlas, paths, weights, title="net <i>.pth", maps=maps, num_cells=5)


@pytest.fixture(scope="session")
def open_browser():
    browser = start_browser()
    yield browser
    browser.quit()


@pytest.fixture
def browser(open_browser, page):
    """A new window of the page; the test fails if the console has an error at the end."""
    open_browser.get("about:blank")
    open_browser.set_window_size(1000, 800)
    open_browser.get(page.as_uri())
    open_browser.get_log("browser")
    yield open_browser
    assert [line for line in open_browser.get_log("browser") if line["level"] == "SEVERE"] == []
