"""The documentation site builds without a warning, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote

import pytest
from project import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def test_links_and_images_of_all_pages_exist(site):
    pages = {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 20
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    lost = []
    for page, text in pages.items():
        for address in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            target, _, anchor = unquote(unescape(address)).partition("#")
            if re.match(r"https?:|mailto:|data:", target):
                continue
            file = (page.parent / target).resolve() if target else page
            if not file.exists() or (anchor and file.suffix == ".html" and anchor not in ids.get(file, {anchor})):
                lost.append((page.name, address))
    assert lost == []


def test_pages_load_nothing_from_other_servers(site):
    for page in site.rglob("*.html"):
        assert not re.search(
            r'<(?:script|img)[^>]+src="https?:|<link[^>]+stylesheet[^>]+href="https?:', page.read_text()
        ), page


def test_every_registered_class_is_in_the_reference(site):
    text = (site / "reference/settings.html").read_text()
    names = {
        name
        for path in ROOT.glob("sspyr_mm/[a-z]*/**/*.py")
        for name in re.findall(r"\.register_module\([^)]*\)\s+class (\w+)", path.read_text())
    }
    assert len(names) > 40 and [name for name in names if f".{name}" not in text] == []
    assert not re.search(r":(class|func|meth|data|mod|attr):", text)
    assert "max_share" in text and "num_prototypes" in text  # arguments of ProbeHook, fields of ScaleSpec
