"""Downloads from a local server: repeated, refused, checked; and the hub's files through its own client."""

import gzip
import hashlib
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from small_mirror import make_mirror, write_parquet

from dataloader.building import downloads
from dataloader.building.downloads import (
    CONVERTED,
    Downloads,
    Mirror,
    Unavailable,
    names_on_hub,
    path_of,
    select_parquet,
)
from dataloader.building.recipe import Hub

CONTENT = bytes(range(256)) * 400


class Server(ThreadingHTTPServer):
    """Serves CONTENT; the path of a request says what goes wrong."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []  # paths
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        n_before = Counter(self.server.requests)[self.path] - 1
        if "gone" in self.path:
            return self.answer(404, b"")
        if "busy" in self.path and n_before < 2:
            return self.answer(503, b"")
        if "compressing" in self.path and "gzip" in self.headers.get("Accept-Encoding", ""):
            return self.answer(200, gzip.compress(CONTENT), encoding="gzip")
        if "page" in self.path:
            return self.answer(200, b"<html>", "text/html; charset=utf-8")
        if "breaks" in self.path and n_before == 0:
            return self.answer(200, CONTENT[:1000], length=len(CONTENT))
        return self.answer(200, CONTENT)

    def answer(self, status: int, body: bytes, kind="application/octet-stream", length=None, encoding=""):
        self.send_response(status)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length is not None  # a connection that ends before the file does


@pytest.fixture
def server():
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch):
    monkeypatch.setattr(downloads, "_unreachable", set())
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_a_file_is_downloaded_once(server, tmp_path):
    url = server.url("data/file.bin?version=1")
    path = Downloads(tmp_path).raw(url)
    assert path == path_of(url, tmp_path)
    assert path.read_bytes() == CONTENT
    assert Downloads(tmp_path).raw(url) == path
    assert len(server.requests) == 1
    assert Mirror(tmp_path).raw(url) == path  # the cache is a mirror
    other = Downloads(tmp_path).raw(server.url("data/file.bin?version=2"))
    assert other != path


@pytest.mark.parametrize(
    ("path", "requests"),
    [("breaks.bin", 2), ("busy.bin", 3), ("compressing.bin", 1)],
    ids=["an interrupted download starts again", "a busy server", "a server that compresses"],
)
def test_a_download_is_repeated_until_the_whole_file_is_there(server, tmp_path, path, requests):
    assert Downloads(tmp_path).raw(server.url(path)).read_bytes() == CONTENT
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("path", "message"),
    [("gone.bin", "it does not exist"), ("page.bin", "sends a web page in place of the file")],
)
def test_a_source_that_is_gone_is_asked_once_and_named(server, tmp_path, path, message):
    with pytest.raises(Unavailable, match=f"{path}: .*{message}"):
        Downloads(tmp_path).raw(server.url(path))
    assert len(server.requests) == 1
    assert not path_of(server.url(path), tmp_path).exists()


def test_a_server_that_cannot_be_reached_is_one_clear_error(tmp_path):
    with pytest.raises(Unavailable, match="9/x: all attempts failed, the last one because"):
        Downloads(tmp_path).raw("http://127.0.0.1:9/x")
    with pytest.raises(Unavailable, match=r"/y: 127\.0\.0\.1:9 could not be reached before"):
        Downloads(tmp_path).raw("http://127.0.0.1:9/y")


def test_a_full_disk_is_not_an_error_of_the_server(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", full)
    with pytest.raises(OSError, match="No space left"):
        Downloads(tmp_path).raw("http://127.0.0.1:9/x")


def test_another_file_than_that_of_2021_is_refused_unless_it_is_accepted(server, tmp_path, monkeypatch):
    url = server.url("file.bin")
    known = {url: (len(CONTENT) + 1, hashlib.sha256(CONTENT + b"x").hexdigest())}
    monkeypatch.setattr(downloads, "checksums", lambda: known)
    with pytest.raises(
        Unavailable, match=r"is damaged, or .* has changed since 2021: SHA-256 .*102400 bytes"
    ):
        Downloads(tmp_path).raw(url)
    assert Downloads(tmp_path, accept_changed=True).raw(url).read_bytes() == CONTENT
    assert len(server.requests) == 1


# ---------------------------------------------------------------------------- the hub


@pytest.mark.parametrize(
    ("config", "split", "expected"),
    [
        ("cola", "train", ["cola/train-00000-of-00002.parquet", "cola/train-00001-of-00002.parquet"]),
        ("mnli", "validation_matched", ["mnli/validation_matched-00000-of-00001.parquet"]),
    ],
)
def test_a_repositorys_own_files_are_chosen_by_configuration_and_split(config, split, expected):
    names = ["README.md", "cola/train-00001-of-00002.parquet", "cola/train-00000-of-00002.parquet"]
    names += ["cola/test-00000-of-00001.parquet", "mnli/validation_matched-00000-of-00001.parquet"]
    assert select_parquet(names, "glue", config, split) == expected


def test_files_without_a_configuration_and_converted_files_are_chosen():
    assert select_parquet(["data/train-00000-of-00001-0a1b.parquet"], "x", "", "train") == [
        "data/train-00000-of-00001-0a1b.parquet"
    ]
    converted = ["default/train/0000.parquet", "default/train/0001.parquet", "other/train/0000.parquet"]
    assert select_parquet(converted, "x", "", "train") == converted[:2]
    assert select_parquet(converted[:2], "x", "2021-name", "train") == converted[:2]
    assert select_parquet(["binary/train/0000.parquet"], "x", "", "train") == ["binary/train/0000.parquet"]


@pytest.mark.parametrize(
    ("names", "config", "message"),
    [
        (["README.md"], "", "x has no parquet files"),
        (["a/train/0000.parquet", "b/train/0000.parquet"], "c", "no configuration c .it has a, b"),
        (["binary/train/0000.parquet"], "multilabel", "no configuration multilabel .it has binary"),
        (["a/test/0000.parquet"], "a", "x a has no split train .it has test"),
        (["a/partial-train/0000.parquet"], "a", "has converted only a part of the split train"),
    ],
)
def test_missing_and_partial_splits_are_named(names, config, message):
    with pytest.raises(Unavailable, match=message):
        select_parquet(names, "x", config, "train")


@pytest.fixture
def mirror(local_hub, tmp_path):
    """A mirror folder; the hub, which has the same data sets, has its revisions main and CONVERTED."""
    names_on_hub.cache_clear()
    mirror = make_mirror(tmp_path / "mirror")
    write_parquet(mirror, "example/own", "data/train-00000-of-00001.parquet", [{"a": 1}])
    top = mirror / "huggingface.co/datasets/example"
    local_hub.publish("example/geography", top / "geography/resolve" / CONVERTED, CONVERTED)
    local_hub.publish("example/own", top / "own/resolve/main")
    yield mirror
    names_on_hub.cache_clear()


def test_data_sets_are_read_through_the_client_of_the_hub(local_hub, mirror, tmp_path):
    files = Downloads(tmp_path)
    for source, n_rows in ((Hub("example/geography", "capitals"), 12), (Hub("example/own"), 1)):
        rows = list(source.rows("train", files))
        assert rows == list(source.rows("train", Mirror(mirror)))
        assert len(rows) == n_rows
    with pytest.raises(Unavailable, match=r"example/own has no split test \(it has train\)"):
        list(Hub("example/own").rows("test", files))
    with pytest.raises(Unavailable, match="example/nothing at main: it does not exist"):
        list(Hub("example/nothing").rows("train", files))
    lists = Counter(path for path in local_hub.requests if path.startswith("api/datasets/"))
    assert lists["api/datasets/example/own/revision/main"] == 1
