"""Downloads from a local server: continued, repeated, refused; and the hub's files through its own client."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from local_hub import dropping_packets, use_endpoint
from small_mirror import make_mirror, write_parquet

from dataloader.building import downloads
from dataloader.building.downloads import Downloads, Mirror, place_of
from dataloader.building.parquet_files import select_parquet
from dataloader.building.sources import Unavailable

CONTENT = bytes(range(256)) * 400


class Server(ThreadingHTTPServer):
    """Serves CONTENT; the path of a request says what goes wrong."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []  # (path, Range header)
        self.is_stopped = threading.Event()  # then late answers are sent
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        start = self.headers.get("Range")
        self.server.requests.append((self.path, start))
        n_before = Counter(path for path, _ in self.server.requests)[self.path] - 1
        if "late" in self.path:
            self.server.is_stopped.wait()
        if "half" in self.path:
            self.answer(200, CONTENT[:1000], length=len(CONTENT))
            return self.server.is_stopped.wait()
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
        if start and "no_ranges" not in self.path:
            return self.answer(206, CONTENT[int(start.removeprefix("bytes=").removesuffix("-")) :])
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
    running.is_stopped.set()
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch):
    for hosts in ("_unreachable", "_answered"):
        monkeypatch.setattr(downloads, hosts, set())
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)


@pytest.fixture
def know(monkeypatch):
    """know(url): gives the URL the checksum of CONTENT."""

    def add(url: str, content: bytes = CONTENT) -> str:
        known = {url: (len(content), hashlib.sha256(content).hexdigest())}
        monkeypatch.setattr(downloads, "checksums", lambda: known)
        return url

    return add


def test_a_file_is_downloaded_once(server, tmp_path):
    url = server.url("data/file.bin?version=1")
    path = Downloads(tmp_path).raw(url)
    assert path == place_of(url, tmp_path)
    assert path.read_bytes() == CONTENT
    assert Downloads(tmp_path).raw(url) == path
    assert len(server.requests) == 1
    assert Mirror(tmp_path).raw(url) == path  # the cache is a mirror


def test_an_interrupted_download_of_a_known_file_continues(server, tmp_path, know):
    url = know(server.url("breaks/file.bin"))
    assert Downloads(tmp_path).raw(url).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == [None, "bytes=1000-"]


def test_an_interrupted_download_of_an_unknown_file_starts_again(server, tmp_path):
    assert Downloads(tmp_path).raw(server.url("breaks/file.bin")).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == [None, None]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path, know):
    url = know(server.url("breaks/no_ranges.bin"))
    assert Downloads(tmp_path).raw(url).read_bytes() == CONTENT


def test_the_start_of_another_file_is_not_kept(server, tmp_path, know):
    url = know(server.url("file.bin"))
    part = place_of(url, tmp_path).with_name("file.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"another file")
    assert Downloads(tmp_path).raw(url).read_bytes() == CONTENT
    assert [start for _, start in server.requests] == ["bytes=12-", None]


def test_a_server_that_compresses_is_asked_not_to(server, tmp_path):
    assert Downloads(tmp_path).raw(server.url("compressing.bin")).read_bytes() == CONTENT


def test_urls_that_differ_in_their_query_are_different_files(server, tmp_path):
    files = Downloads(tmp_path)
    first, second = files.raw(server.url("download?id=1")), files.raw(server.url("download?id=2"))
    assert first != second
    assert len(server.requests) == 2


def test_a_mirror_may_have_a_file_without_its_query(tmp_path):
    path = tmp_path / "data.example.org/file.bin"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert Mirror(tmp_path).raw("https://data.example.org/file.bin?download=1") == path


def test_a_busy_server_is_asked_again(server, tmp_path):
    assert Downloads(tmp_path).raw(server.url("busy.bin")).read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [("gone.bin", "it does not exist"), ("page.bin", "sends a web page in place of the file")],
)
def test_a_source_that_is_gone_is_asked_once_and_named(server, tmp_path, path, message):
    with pytest.raises(Unavailable, match=f"{path}: .*{message}"):
        Downloads(tmp_path).raw(server.url(path))
    assert len(server.requests) == 1
    assert not place_of(server.url(path), tmp_path).exists()


def test_a_server_that_cannot_be_reached_is_one_clear_error(tmp_path):
    with pytest.raises(Unavailable, match="/x: 5 attempts failed, the last one because"):
        Downloads(tmp_path).raw("http://127.0.0.1:9/x")
    with pytest.raises(Unavailable, match=r"/y: 127\.0\.0\.1:9 could not be reached before"):
        Downloads(tmp_path).raw("http://127.0.0.1:9/y")


def test_the_offline_mode_of_the_hub_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE is set; unset it, or read a file of this machine"):
        Downloads(tmp_path).parquet("example/own", "", "train")


def test_an_address_that_is_no_url_is_one_clear_error(tmp_path):
    with pytest.raises(Unavailable, match="ftp://host/x: "):
        Downloads(tmp_path).raw("ftp://host/x")


def test_another_file_than_that_of_2021_is_refused_unless_it_is_accepted(server, tmp_path, know):
    url = know(server.url("file.bin"), CONTENT + b"x")
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


class Hub(BaseHTTPRequestHandler):
    """What the client of the hub asks for, from a mirror folder."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self, body=True):
        path = Path(self.server.folder, self.path.split("?")[0].replace("%2F", "/").lstrip("/"))
        if self.path.startswith("/api/datasets/"):
            self.server.lists.append(self.path)
            if len(self.server.lists) <= len(self.server.refusals):
                return self.answer(429, b"", self.server.refusals[len(self.server.lists) - 1])
            repository, _, revision = (
                self.path.removeprefix("/api/datasets/").split("?")[0].partition("/revision/")
            )
            top = Path(self.server.folder, "datasets", repository, "resolve", revision.replace("%2F", "/"))
            if not top.exists():
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = [
                file for file in sorted(top.rglob("*")) if file.is_file() and "refs" not in file.parts[-4:-1]
            ]
            names = [{"rfilename": file.relative_to(top).as_posix()} for file in files]
            info = {"id": repository, "sha": "0" * 40, "siblings": names}
            return self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        if not path.is_file():
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        tags = {"X-Repo-Commit": "0" * 40, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        return self.answer(200, content, tags, body)

    def do_HEAD(self):
        self.do_GET(body=False)

    def answer(self, status: int, content: bytes, headers: dict, body=True):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(tmp_path):
    """A server of the data sets in a mirror folder; their rows are also a mirror for comparison."""
    mirror = make_mirror(tmp_path / "mirror")
    write_parquet(mirror, "example/own", "data/train-00000-of-00001.parquet", [{"a": 1}])
    running = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    running.folder = mirror / "huggingface.co"
    running.lists, running.refusals = [], []  # requests for lists of files; headers of the first answers
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    running.url, running.mirror = f"http://127.0.0.1:{running.server_port}", mirror
    yield running
    running.shutdown()
    running.server_close()


READ = """
import sys
from pathlib import Path
from dataloader.building.downloads import Downloads, Mirror
from dataloader.building.sources import Hub, Unavailable

mirror, downloads = Mirror(Path(sys.argv[1])), Downloads(Path("unused"))
for source in (Hub("example/geography", "capitals"), Hub("example/own")):
    rows = list(source.rows("train", downloads))
    assert rows == list(source.rows("train", mirror)), rows
    print(source, len(rows))
for source, split in ((Hub("example/own"), "test"), (Hub("example/nothing"), "train")):
    try:
        list(source.rows(split, downloads))
    except Unavailable as error:
        print(error)
"""


@pytest.mark.slow
def test_data_sets_are_read_through_the_client_of_the_hub(hub, tmp_path):
    env = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", READ, str(hub.mirror)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *read, no_split, gone = done.stdout.splitlines()
    assert read == ["hub data set example/geography, capitals 12", "hub data set example/own 1"]
    assert "example/own has no split test (it has train)" in no_split
    assert "example/nothing at main: it does not exist" in gone


@pytest.fixture
def asks(hub, monkeypatch, tmp_path):
    """The hub, which the client in this process asks; `hub.pauses` are the seconds that it waits."""
    use_endpoint(monkeypatch, hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    huggingface_hub.close_session()
    hub.pauses = []
    monkeypatch.setattr(downloads.time, "sleep", hub.pauses.append)
    yield hub
    huggingface_hub.close_session()


def test_the_files_of_a_repository_are_listed_once(asks, tmp_path):
    files = Downloads(tmp_path)
    write_parquet(asks.mirror, "example/own", "data/test-00000-of-00001.parquet", [{"a": 2}])
    for split in ("train", "test", "train"):
        assert files.parquet("example/own", "", split)
    assert len(asks.lists) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"RateLimit": '"api";r=0;t=55'}, 56), ({"Retry-After": "120"}, 121), ({}, 1)],
    ids=["rate limit", "retry after", "without a time"],
)
def test_a_list_waits_as_long_as_a_rate_limit_says(headers, seconds, asks, tmp_path, capsys):
    asks.refusals = [headers]
    assert Downloads(tmp_path).parquet("example/own", "", "train")
    assert asks.pauses == [seconds]
    line = f"the server answers with status 429; waiting {seconds} seconds, as it asks"
    assert (line in capsys.readouterr().err) == bool(headers)


def test_a_pause_without_reason_is_not_waited_for(asks, tmp_path):
    asks.refusals = [{"Retry-After": "100000"}] * 2
    with pytest.raises(Unavailable, match="status 429 and asks for a pause of 100001 seconds"):
        Downloads(tmp_path).parquet("example/own", "", "train")
    assert asks.pauses == []


def test_a_hub_that_never_answers_is_left_out_after_the_attempts(asks, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.05)
    with dropping_packets() as silent:
        use_endpoint(monkeypatch, silent)
        with pytest.raises(Unavailable, match="5 attempts failed, the last one because: timed out"):
            Downloads(tmp_path).parquet("example/own", "", "train")
    use_endpoint(monkeypatch, asks.url)
    with pytest.raises(Unavailable, match=r"huggingface\.co could not be reached before"):
        Downloads(tmp_path).parquet("example/own", "", "train")
    assert asks.lists == []


@pytest.mark.parametrize("first", ["file.bin", "gone.bin", "half/file.bin", None])
def test_a_host_whose_answer_is_late_stays_in_if_it_has_answered_before(server, tmp_path, monkeypatch, first):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.05)
    if first:
        with suppress(Unavailable):
            Downloads(tmp_path).raw(server.url(first))
    with pytest.raises(Unavailable, match="5 attempts failed, the last one because: timed out"):
        Downloads(tmp_path).raw(server.url("late.bin"))
    files = Downloads(tmp_path)
    if first:
        assert files.raw(server.url("other.bin")).read_bytes() == CONTENT
    else:  # then it may never answer
        with pytest.raises(Unavailable, match="could not be reached before"):
            files.raw(server.url("other.bin"))
