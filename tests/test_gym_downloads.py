"""Downloads: kept, refused, checked; the choice of the hub's files; and its files through its own client."""

import hashlib
from types import SimpleNamespace

import pytest
import requests
from small_mirror import make_mirror, read_from_mirror, write_parquet

from dataloader.building import downloads
from dataloader.building.downloads import Downloads, Mirror, Unavailable, path_of, refuse, select_parquet
from dataloader.building.recipe import Hub

CONTENT = bytes(range(256)) * 400
URL = "https://data.example.org/data//file.bin?version=1"


@pytest.fixture
def server(monkeypatch):
    """Writes CONTENT for every URL; returns the list of requests, and raises `server.error` if it is set."""
    asked = SimpleNamespace(urls=[], error=None)

    def download(_, url: str, file: str, pooch) -> None:
        asked.urls.append(url)
        if asked.error:
            raise asked.error
        with open(file, "wb") as opened:
            opened.write(CONTENT)

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", download)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(downloads, "_unreachable", set())
    return asked


def test_a_file_is_downloaded_once(server, tmp_path):
    path = Downloads(tmp_path).raw(URL)
    assert path == path_of(URL, tmp_path) == tmp_path / "data.example.org/data/file.bin?version=1"
    assert path.read_bytes() == CONTENT
    assert Downloads(tmp_path).raw(URL) == path
    assert server.urls == [URL]
    assert Mirror(tmp_path).raw(URL) == path  # the cache is a mirror
    path.rename(path.with_name("file.bin"))
    assert Mirror(tmp_path).raw(URL) == path.with_name("file.bin")  # mirrors of other tools have no query


@pytest.mark.parametrize(
    ("status", "kind", "message"), [(404, "", "status 404"), (200, "text/html; charset=utf-8", "a web page")]
)
def test_an_answer_that_would_be_the_same_again_is_refused(status, kind, message):
    response = SimpleNamespace(status_code=status, headers={"content-type": kind})
    with pytest.raises(Unavailable, match=f"https://x: .*{message}"):
        refuse("https://x", response)
    for passing in (200, 429, 503):
        refuse("https://x", SimpleNamespace(status_code=passing, headers={}))


def test_a_server_that_cannot_be_reached_is_tried_again_but_not_for_the_next_file(server, tmp_path):
    server.error = requests.ConnectionError("refused")
    with pytest.raises(Unavailable, match="all attempts failed, the last one because: refused"):
        Downloads(tmp_path).raw(URL)
    assert len(server.urls) == 5
    with pytest.raises(Unavailable, match=r"/y: data\.example\.org could not be reached before"):
        Downloads(tmp_path).raw("https://data.example.org/y")


def test_a_full_disk_is_not_an_error_of_the_server(server, tmp_path):
    server.error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        Downloads(tmp_path).raw(URL)


def test_another_file_than_that_of_2021_is_refused_unless_it_is_accepted(server, tmp_path, monkeypatch):
    known = {URL: (len(CONTENT) + 1, hashlib.sha256(CONTENT + b"x").hexdigest())}
    monkeypatch.setattr(downloads, "checksums", lambda: known)
    with pytest.raises(Unavailable, match=r"is damaged, or .* has changed since 2021: .*102401 bytes"):
        Downloads(tmp_path).raw(URL)
    assert Downloads(tmp_path, accept_changed=True).raw(URL).read_bytes() == CONTENT
    assert len(server.urls) == 1


# ---------------------------------------------------------------------------- the hub


def test_a_repositorys_own_files_are_chosen_by_configuration_and_split_else_converted_ones():
    shards = ["cola/train-00000-of-00002.parquet", "cola/train-00001-of-00002.parquet"]
    others = ["README.md", "cola/test-00000-of-00001.parquet"]
    others += ["mnli/validation_matched-00000-of-00001.parquet"]
    assert select_parquet([*others, *reversed(shards)], "glue", "cola", "train") == shards
    assert select_parquet([*others, *shards], "glue", "mnli", "validation_matched") == others[2:]
    unnamed = ["data/train-00000-of-00001-0a1b.parquet"]
    assert select_parquet(unnamed, "x", "", "train") == unnamed
    converted = ["default/train/0000.parquet", "default/train/0001.parquet", "other/train/0000.parquet"]
    assert select_parquet(converted, "x", "", "train") == converted[:2]
    assert select_parquet(converted[:2], "x", "2021-name", "train") == converted[:2]
    assert select_parquet(["binary/train/0000.parquet"], "x", "", "train") == ["binary/train/0000.parquet"]


@pytest.mark.parametrize(
    ("names", "config", "message"),
    [
        (["README.md"], "", "it has no parquet files"),
        (["a/train/0000.parquet", "b/train/0000.parquet"], "c", "no configuration c .it has a, b"),
        (["a/test/0000.parquet"], "a", "x a has no split train .it has test"),
        (["a/partial-train/0000.parquet"], "a", "has converted only a part of the split train"),
    ],
)
def test_missing_and_partial_splits_are_named(names, config, message):
    with pytest.raises(Unavailable, match=message):
        select_parquet(names, "x", config, "train")


def test_data_sets_are_read_through_the_client_of_the_hub(tmp_path, monkeypatch):
    mirror = make_mirror(tmp_path / "mirror")
    write_parquet(mirror, "example/own", "data/train-00000-of-00001.parquet", [{"a": 1}])
    read_from_mirror(monkeypatch, mirror)
    files = Downloads(tmp_path)
    for source, n_rows in ((Hub("example/geography", "capitals"), 12), (Hub("example/own"), 1)):
        rows = list(source.rows("train", files))
        assert rows == list(source.rows("train", Mirror(mirror)))
        assert len(rows) == n_rows
    with pytest.raises(Unavailable, match=r"example/own default has no split test \(it has train\)"):
        list(Hub("example/own").rows("test", files))
