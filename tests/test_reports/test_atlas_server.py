"""The server of an atlas: real requests, a real browser, and the command."""

import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from atlas_of_colours import measure_maps
from browser_page import find, wait_for
from project import ROOT

from sspyr_mm.__main__ import main
from sspyr_mm.reports.atlas.atlas_page import correlations, write_page
from sspyr_mm.reports.atlas.atlas_server import Locator, make_server, save_embeddings


@pytest.fixture(scope="module")
def served(checkpoint, atlas_of_colours, tmp_path_factory):
    """Address, atlas, and images of a running server."""
    _, paths, _, _ = atlas_of_colours
    model, atlas, maps = measure_maps(checkpoint, paths, 100)
    out = tmp_path_factory.mktemp("served")
    (out / "secret.txt").write_text("secret")
    write_page(out, atlas, paths, correlations(model), title="net", maps=maps)
    (out / "page/link.txt").symlink_to(out / "secret.txt")
    (out / "page/folder").symlink_to("/etc")
    os.mkfifo(out / "page/pipe")
    with make_server(out, Locator(model, {part.scale: part.embedding for part in atlas}, {}), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", atlas, paths
        server.shutdown()


def send(address, content, **headers):
    request = urllib.request.Request(f"{address}/locate", content, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_image_of_the_atlas_is_located_where_it_is(served):
    address, atlas, paths = served
    with open(paths[4], "rb") as file:
        status, found = send(address, file.read())
    assert status == 200 and list(found) == [part.scale for part in atlas]
    for part in atlas:
        rows = np.arange(4 * part.num_cells, 5 * part.num_cells)
        cells = found[part.scale]
        assert [cell["prototype"] for cell in cells] == part.prototype[rows].tolist()
        assert np.allclose([cell["score"] for cell in cells], part.score[rows], atol=1e-3)
        assert np.allclose([cell["box"] for cell in cells], part.box[rows] / [80, 60, 80, 60], atol=1e-3)
        for row, cell in zip(rows, cells, strict=True):
            cosine = part.embedding[cell["nearest"]] @ part.embedding[row]  # all cells of the ten images are mapped
            assert len(cosine) == min(12, len(part.mapped)) and cosine[0] == pytest.approx(1, abs=1e-4)
            assert cosine[-1] == pytest.approx(np.sort(part.embedding @ part.embedding[row])[-len(cosine)], abs=1e-5)


@pytest.mark.parametrize("content", [b"no image", b"\x89PNG\r\n", b""])
def test_other_content_is_refused(content, served):
    status, answer = send(served[0], content)
    assert status == 400 and json.loads(answer) == {"error": "The file cannot be read as an image"}


@pytest.mark.parametrize(("size", "status"), [(str(1 << 40), 413), ("1" * 5000, 413), ("-1", 411), ("many", 411)])
def test_size_is_limited(size, status, served):
    connection = http.client.HTTPConnection(served[0].removeprefix("http://"))
    connection.putrequest("POST", "/locate")
    connection.putheader("Content-Length", size)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == status and ("larger than 64 MiB" in json.load(answer)["error"]) == (status == 413)


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example:80"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_requests_of_other_pages_are_refused(headers, served):
    assert send(served[0], b"x", **headers)[0] == 403
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(f"{served[0]}/page/data.js", headers=headers))


@pytest.mark.parametrize(
    "path",
    [
        *("/secret.txt", "/page/", "/page/%00", "/page/../secret.txt", "/page/%2e%2e/secret.txt"),
        *("/page//etc/passwd", "//etc/passwd", "/page/link.txt", "/page/folder/hostname", "/page/pipe"),
    ],
)
def test_only_the_page_is_served(path, served):
    connection = http.client.HTTPConnection(served[0].removeprefix("http://"))
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 404 and b"secret" not in answer.read()


def test_tunnel_and_head(served):
    """The port of a tunnel is another one; HEAD has no body."""
    request = urllib.request.Request(served[0] + "/page/data.js", headers={"Host": "localhost:9000"}, method="HEAD")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200 and int(answer.headers["Content-Length"]) > 0 and answer.read() == b""


def test_client_that_goes_away_prints_nothing(served, capfd):
    connection = http.client.HTTPConnection(served[0].removeprefix("http://"))
    connection.putrequest("POST", "/locate")
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
    connection.close()
    assert send(served[0], b"x")[0] == 400
    assert capfd.readouterr().err == ""


def test_chosen_image_is_shown_with_its_nearest_cells(served, open_browser):
    address, atlas, paths = served
    open_browser.get("about:blank")
    open_browser.get_log("browser")
    open_browser.get(address + "/")
    wait_for(lambda: find(open_browser, "#own-file")[0].is_displayed())
    find(open_browser, "#own-file")[0].send_keys(paths[4])
    wait_for(lambda: find(open_browser, "#own-cells .tile"))
    assert (
        len(find(open_browser, ".own-box")) == 1
        and find(open_browser, "#own-cells .tile")[0].get_attribute("title") == paths[4]
    )
    find(open_browser, "[role=tab]")[1].click()
    rows = find(open_browser, "#own-cells .links")
    assert len(rows) == len(find(open_browser, ".own-box")) == atlas[1].num_cells
    prototype = atlas[1].prototype[4 * atlas[1].num_cells]
    assert rows[0].text.startswith(f"cell 1: prototype {prototype} (")
    with open(paths[4], "rb") as file:
        nearest = send(address, file.read())[1]["s1"][0]["nearest"][0]  # one of several cells of a colour
    rows[0].find_elements("css selector", ".tile")[0].click()
    assert find(open_browser, "#source-name")[0].text == paths[atlas[1].image_of(atlas[1].mapped[nearest])]
    find(open_browser, "dialog form button")[0].click()
    rows[0].find_elements("css selector", "a")[0].click()
    wait_for(lambda: find(open_browser, f"#s1-{prototype}.marked"))
    open_browser.execute_script("window.scrollTo(0, 0)")
    find(open_browser, "#own-close")[0].click()
    assert not find(open_browser, "#own")[0].is_displayed()
    assert [line for line in open_browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_broken_image_is_reported_on_the_page(served, open_browser, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    open_browser.get("about:blank")
    open_browser.get(served[0] + "/")
    wait_for(lambda: find(open_browser, "#own-file")[0].is_displayed())
    find(open_browser, "#own-file")[0].send_keys(str(tmp_path / "broken.png"))
    message = "broken.png: The file cannot be read as an image"
    wait_for(lambda: find(open_browser, "#own-name")[0].text == message)
    assert not find(open_browser, "#own-image")[0].is_displayed()
    open_browser.get_log("browser")  # has the status 400


def test_page_from_the_disk_has_no_choice_of_an_image(browser):
    assert not find(browser, "#own-choice")[0].is_displayed()


def test_command_serves_a_new_and_an_existing_atlas_until_it_is_interrupted(checkpoint, atlas_of_colours, tmp_path):
    path = atlas_of_colours[1][4]
    answers = []
    for new in ("--images", path.rpartition("/")[0], "--points", 0), ():
        line = ["atlas", checkpoint, *new, "-o", tmp_path, "--workers", 0, "--serve", 0]
        command = [sys.executable, "-m", "sspyr_mm", *map(str, line)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            lines = (re.match(r"(http://127\.0\.0\.1:\d+)/ ", text) for text in process.stdout)
            address = next(line[1] for line in lines if line)
            assert urllib.request.urlopen(address + "/").read() == (tmp_path / "index.html").read_bytes()
            with open(path, "rb") as file:
                answers.append(send(address, file.read()))
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert answers[0][0] == 200 and answers[0] == answers[1]


def test_atlas_of_another_network_is_not_served(checkpoint, served, tmp_path, capsys):
    line = ["atlas", str(checkpoint), "-o", str(tmp_path), "--serve", "0"]
    assert main(line) == 2
    assert "has no atlas that can be served" in capsys.readouterr().err
    (tmp_path / "page").mkdir()
    save_embeddings(tmp_path, served[1], "another")
    (tmp_path / "page/data.js").write_text("window.ATLAS = {};")
    assert main(line) == 2
    assert "of another checkpoint or selection" in capsys.readouterr().err
    for damage in (b"", b"no file", (tmp_path / "page/embeddings.pth").read_bytes()[:-1000]):
        (tmp_path / "page/embeddings.pth").write_bytes(damage)
        assert main(line) == 2
        assert "has no atlas that can be served" in capsys.readouterr().err
    assert main(line[:-2]) == 2
    assert "--images is missing" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "used"])
def test_port_is_checked_before_the_images_are_read(port, served, checkpoint, tmp_path, capsys):
    port = served[0].rpartition(":")[2] if port == "used" else port
    line = ["atlas", str(checkpoint), "--images", str(tmp_path), "-o", str(tmp_path / "out"), "--serve", port]
    assert main(line) == 2
    assert f"--serve {port}: the port cannot be used" in capsys.readouterr().err
