"""Shards in an object store: packing, reading and training over HTTP, with a local server."""

import json
import os
import subprocess
import sys
import threading

import boto3
import pytest
from litdata.streaming import downloader
from moto.server import DomainDispatcherApplication, create_backend_app
from project import ROOT
from small_runs import ITERS, NUM_IMAGES
from werkzeug.serving import make_server

from sspyr_mm.__main__ import main
from sspyr_mm.datasets import StreamedImages, UnlabelledImages
from sspyr_mm.datasets.broken import read_appended
from sspyr_mm.datasets.link import record_broken
from sspyr_mm.datasets.streaming.shards import pack


class Store:
    """S3 server that rejects writes of objects whose names contain ``refuse``."""

    def __init__(self):
        self.refuse = None
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ, start_response):
        writes = environ["REQUEST_METHOD"] in ("PUT", "POST")
        if writes and self.refuse and self.refuse in environ["PATH_INFO"]:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return self._s3(environ, start_response)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def store():
    server = Store()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _http_is_allowed_while_needed_only():
    yield
    assert "allow_http" not in downloader._OBSTORE_CLIENT_OPTIONS


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def bucket(store, request):
    name = f"bucket-{abs(hash(request.node.name))}"
    boto3.client("s3", endpoint_url=store.url).create_bucket(Bucket=name)
    yield name
    store.refuse = None


def epoch_of(dataset):
    dataset.start_epoch(0, seed=3, batch_size=2, num_workers=0)
    return [(r["sample_idx"], r["img_path"], r["img_bytes"]) for r in dataset]


def item(results):
    return results


def test_shards_in_a_store_equal_shards_on_a_disk(store, bucket, images, tmp_path):
    options = {"endpoint_url": store.url}
    paths = UnlabelledImages(str(images)).list_images()
    url = f"s3://{bucket}/deep/shards"
    assert not pack(paths, url, shard_bytes=8000, num_workers=1, storage_options=options)
    assert not pack(paths, str(tmp_path / "local"), shard_bytes=8000, num_workers=1)
    there = StreamedImages(url, pipeline=[item], cache_dir=str(tmp_path / "cache"), storage_options=options)
    here = StreamedImages(str(tmp_path / "local"), pipeline=[item])
    found = epoch_of(there)
    assert found == epoch_of(here)
    assert len(found) == NUM_IMAGES
    for _, name, data in found:
        assert (images / name).read_bytes() == data


def test_missing_shard_of_a_store_is_replaced(store, bucket, images, tmp_path, capfd):
    options = {"endpoint_url": store.url}
    url = f"s3://{bucket}/shards"
    paths = UnlabelledImages(str(images)).list_images()
    assert not pack(paths, url, shard_bytes=8000, num_workers=1, storage_options=options)
    client = boto3.client("s3", endpoint_url=store.url)
    client.delete_object(Bucket=bucket, Key="shards/chunk-0-1.bin")
    dataset = StreamedImages(url, pipeline=[item], cache_dir=str(tmp_path / "cache"), storage_options=options)
    record_broken(dataset, tmp_path / "broken")
    found = epoch_of(dataset)
    assert len(found) == NUM_IMAGES and len({name for _, name, _ in found}) < NUM_IMAGES
    ((one,), _) = read_appended(tmp_path / "broken", 0)
    assert one.name == "shard chunk-0-1.bin" and one.reason.startswith("cannot be fetched (")
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("refused", "facts"),
    [
        ("chunk-0-0", ["1 of 1 shards are missing at s3://", "chunk-0-0.bin"]),  # litdata only logs the error
        ("index.json", ["check that the store's keys allow writing"]),
    ],
)
def test_missing_object_is_reported(store, bucket, images, capfd, refused, facts):
    store.refuse = refused
    arguments = ["pack", str(images), f"s3://{bucket}/shards", "--num-workers", "1"]
    assert main([*arguments, "--storage-options", json.dumps({"endpoint_url": store.url})]) == 2
    reported = capfd.readouterr().err
    assert all(fact in reported for fact in facts)


def test_read_only_store_is_rejected(images, capsys):
    assert main(["pack", str(images), "azure://container/shards"]) == 2
    assert "OUT must be a folder or start with s3://, gs://, r2://" in capsys.readouterr().err


def test_training_from_a_store(store, bucket, config, images, tmp_path):
    """The command of the documentation: every epoch is complete, and a checkpoint is saved at the end."""
    url = f"s3://{bucket}/shards"
    storage = json.dumps({"endpoint_url": store.url})
    assert main(["pack", str(images), url, "--num-workers", "1", "--storage-options", storage]) == 0
    options = [
        "train_cfg.max_epochs=2",
        "train_dataloader.num_workers=2",
        f"train_dataloader.dataset.cache_dir={tmp_path}/cache",
        f"train_dataloader.dataset.storage_options.endpoint_url={store.url}",
    ]
    command = [sys.executable, "tools/train.py", str(config), "--data-root", url]
    done = subprocess.run(
        [*command, "--work-dir", str(tmp_path / "work"), "--cfg-options", *options],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "work/epoch_2.pth").is_file()
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "Epoch(train)" in line]
    assert sum(f"[2][{ITERS}/{ITERS}]" in line for line in lines) == 1
