"""Models by hub name: from the cache without a request, else a download, else one clear error."""

import shutil
from fnmatch import fnmatch

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tiny_runs import write_bart

from dataloader.errors import InputError
from routing_moe.checkpoints.find import SavedBart
from routing_moe.io import hub

NAME = "facebook/bart-base"


@pytest.fixture
def client(tmp_path, monkeypatch):
    """`snapshot_download` with a hub and a cache that are folders. client.asked: names of downloads."""

    def download(repository, revision=None, local_files_only=False, allow_patterns="*", ignore_patterns=()):
        commit = download.commits.get((repository, revision or "main"))
        cached = tmp_path / "cache" / (commit.name if commit else "none")
        if local_files_only:
            if not cached.is_dir():
                raise LocalEntryNotFoundError("not cached")
            return str(cached)
        download.asked.append(repository)
        if commit is None or download.is_offline:
            raise OSError("no answer")
        for file in commit.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                cached.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, cached / file.name)
        return str(cached)

    download.commits, download.asked = {(NAME, "main"): write_bart(tmp_path / "commit1")}, []
    download.is_offline = False
    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "_folders", {})
    return download


def test_a_model_is_downloaded_once_and_its_commit_is_known(client):
    folder = hub.local_folder(NAME)
    hub._folders.clear()  # as in another process
    assert hub.local_folder(NAME) == hub.known_folder(NAME) == folder
    assert client.asked == [NAME]
    assert hub.commits() == {NAME: "commit1"}
    assert SavedBart(NAME).config.d_model == SavedBart(str(folder)).config.d_model


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_an_incomplete_copy_is_completed(client, file):
    (hub.local_folder(NAME) / file).unlink()
    hub._folders.clear()
    assert (hub.local_folder(NAME) / file).is_file()
    assert client.asked == [NAME, NAME]


def test_without_a_network_a_copy_without_tokenizer_is_used(client):
    (hub.local_folder(NAME) / "tokenizer.json").unlink()
    hub._folders.clear()
    client.is_offline = True
    assert (hub.local_folder(NAME) / "config.json").is_file()


@pytest.mark.parametrize(("there", "is_complete"), [((1, 2), True), ((1,), False), ((), False)])
def test_shards_are_used_once_all_are_there(tmp_path, there, is_complete):
    for number in there:
        (tmp_path / f"model-{number:05d}-of-00002.safetensors").touch()
    assert hub.has_weights(tmp_path, "model*.safetensors") is is_complete


def test_a_revision_can_be_given_and_pickled_weights_of_a_run_are_not_downloaded(client, tmp_path):
    old = client.commits["me/run", "v1"] = write_bart(tmp_path / "commit2")
    assert hub.folder_of_run("me/run@v1").name == "commit2"
    (old / "model.safetensors").rename(old / "pytorch_model.bin")
    shutil.rmtree(tmp_path / "cache")
    hub._folders.clear()
    with pytest.raises(InputError, match=r"me/run@v1: has no model\*.safetensors"):
        hub.folder_of_run("me/run@v1")
    assert not (tmp_path / "cache/commit2/pytorch_model.bin").exists()
    assert (hub.local_folder("me/run@v1") / "pytorch_model.bin").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facebook/none", r"facebook/none: no such folder, and no model of the hub .*\(no answer\)"),
        ("a/b/c", "no such folder"),
        ("a b", "not a hub name"),
    ],
)
def test_a_wrong_name_is_one_clear_error(client, name, message):
    with pytest.raises(InputError, match=message):
        hub.local_folder(name)


def test_a_path_in_an_existing_folder_is_no_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert all(map(hub.is_on_hub, ["me/run", "models/run@v1", "me/run@refs/pr/1"]))
    assert not any(map(hub.is_on_hub, ["models/run", "run", "./me/run", "/me/run", "me/run/"]))
