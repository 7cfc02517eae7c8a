"""Models by hub name: one commit, in seconds whatever the network does, and clear errors without a copy."""

import io
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
import torch
from filelock import FileLock
from huggingface_hub import constants
from local_hub import SHORT, dropping_packets, forget, use_endpoint
from tiny_runs import write_bart

from dataloader.errors import InputError
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.find import SavedBart
from routing_moe.checkpoints.start import load_tokenizer
from routing_moe.io import hub, hub_requests, model_files
from routing_moe.io.process_pool import environment, worker_environment
from routing_moe.model.loading import load_bart, load_bart_config

NAME = "facebook/bart-base"


@pytest.fixture
def bart(tmp_path):
    return write_bart(tmp_path / "bart")


def load(name: str = NAME):
    """What a command loads: configuration, weights and tokenizer."""
    config = load_bart_config(name)
    bart = load_bart(name)
    return config, bart, load_tokenizer(name, bart.config.vocab_size)


def weight(bart) -> torch.Tensor:
    return bart.model.shared.weight


def own_messages(caplog) -> list[str]:
    """Messages without those of the client, which goes on with late requests of earlier tests."""
    return [record.getMessage() for record in caplog.records if record.name == "routing_moe"]


@pytest.fixture
def cached(local_hub, bart, monkeypatch):
    """The commit in the cache; the process has not asked the hub yet."""
    commit = local_hub.publish(NAME, bart)
    load()
    forget(monkeypatch)
    local_hub.requests.clear()
    return commit


def silent(running, patch):
    running.silence()


def refusing(running, patch):
    use_endpoint(patch, "http://127.0.0.1:9")


def no_address(running, patch):
    def fails(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    use_endpoint(patch, "http://hub.example")
    patch.setattr(socket, "getaddrinfo", fails)


def address_never_found(running, patch):
    use_endpoint(patch, "http://hub.example")
    patch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: threading.Event().wait(20))
    patch.setattr(hub_requests, "ANSWER_SECONDS", SHORT)


def failing(running, patch):
    running.status = 503


def drops_packets(running, patch):
    use_endpoint(patch, running.dropped)
    patch.setattr(hub_requests, "ANSWER_SECONDS", SHORT)


def files_hang(running, patch):
    running.publish(NAME, running.newer)
    running.silence("/resolve/")


def weights_hang(running, patch):
    running.publish(NAME, running.newer)
    running.silence("GET .*/model.safetensors")


def weights_stall(running, patch):
    running.publish(NAME, running.newer)
    running.silence("$^")
    running.pieces, running.pause = 2, float("inf")


NETWORKS = {
    silent: f"did not answer within {SHORT} seconds",
    refusing: r"cannot be reached \(.*Connection refused",
    no_address: r"cannot be reached \(.*Name or service not known",
    address_never_found: f"did not answer within {SHORT} seconds",
    failing: r"answers with status 503",
    drops_packets: f"did not answer within {SHORT} seconds",
    files_hang: rf"config.json cannot be downloaded \(http\S+ did not answer within {SHORT} seconds",
    weights_hang: rf"model.safetensors cannot be downloaded \(http\S+ sent nothing for {SHORT} seconds",
    weights_stall: rf"model.safetensors cannot be downloaded \(http\S+ sent nothing for {SHORT} seconds",
}


@pytest.fixture(params=NETWORKS, ids=lambda network: network.__name__)
def broken(request, local_hub, tmp_path, monkeypatch):
    """broken() breaks the network and returns what is reported of it."""
    local_hub.newer = newer = write_bart(tmp_path / "newer", seed=7)
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps(config | dict(dropout=0.75)))
    with dropping_packets() as local_hub.dropped:

        def breaks() -> str:
            request.param(local_hub, monkeypatch)
            return NETWORKS[request.param]

        yield breaks


# ---- a network that fails


def test_with_a_copy_in_the_cache_a_model_is_loaded_whatever_the_network_does(cached, bart, broken, caplog):
    reason = broken()
    start = time.monotonic()
    with caplog.at_level(logging.WARNING, "routing_moe"):
        config, loaded, tokenizer = load()
    assert time.monotonic() - start < 10
    assert config.vocab_size == len(tokenizer)
    assert config.dropout == loaded.config.dropout == load_bart_config(bart).dropout
    assert hub.commits() == {NAME: cached}
    assert torch.equal(weight(loaded), weight(load_bart(bart)))
    (line,) = own_messages(caplog)
    assert line.endswith(f"; the copy in the cache is used, commit {cached}")
    assert re.search(reason, line)


def test_without_a_copy_one_error_says_what_failed(broken):
    reason = broken()
    start = time.monotonic()
    with pytest.raises(InputError, match=reason) as failed:
        load()
    assert time.monotonic() - start < 10
    (fault,) = failed.value.faults
    if "safetensors" in reason:  # the hub has the model
        assert fault.endswith("); the same command tries again")
        return
    assert fault.startswith(f"{NAME}: no such folder, and no model of the hub: ")
    assert f"the cache {constants.HF_HUB_CACHE} has no complete copy" in fault
    assert (f"which `hf download {NAME}` makes where" in fault) == ("status" not in reason)
    assert fault.endswith(
        "; for a trial there is a small BART: --model task/skill_gym/tiny_bart (scripts: "
        "MODEL=task/skill_gym/tiny_bart)"
    )


def test_the_offline_mode_uses_the_cache_without_a_word(cached, local_hub, monkeypatch, caplog):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load()
    assert not own_messages(caplog)
    assert not local_hub.requests


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_without_a_copy_the_offline_mode_is_named(variable, local_hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in hub.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(InputError, match=f"{variable} is set, which forbids downloads; the cache"):
        load()
    assert not local_hub.requests


def test_a_copy_without_its_weights_is_not_used(cached, local_hub):
    (snapshot,) = hub.Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    (snapshot / "model.safetensors").unlink()
    local_hub.silence()
    with pytest.raises(InputError, match="has no complete copy"):
        load()


def test_a_hub_that_did_not_answer_is_not_asked_for_the_next_model(local_hub, bart, monkeypatch):
    for name in ("one/bart", "two/bart"):
        local_hub.publish(name, bart)
        load(name)
    forget(monkeypatch)
    local_hub.requests.clear()
    local_hub.silence()
    load("one/bart")
    load("two/bart")
    assert local_hub.requests == ["api/models/one/bart/revision/main"]


def test_an_interrupted_download_does_not_hide_the_complete_commit_before(
    cached, local_hub, tmp_path, monkeypatch
):
    local_hub.publish(NAME, write_bart(tmp_path / "changed", seed=7))
    local_hub.missing = "model.safetensors"
    for _ in range(2):
        assert hub.snapshot(NAME).commit == cached  # not the one whose small files are there
        forget(monkeypatch)
        local_hub.silence()


def test_a_copy_without_a_small_file_is_complete_when_the_file_does_not_arrive(cached, local_hub, caplog):
    (snapshot,) = hub.Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    (snapshot / "generation_config.json").unlink()
    local_hub.silence("/resolve/")
    with caplog.at_level(logging.WARNING, "routing_moe"):
        load()
    (line,) = own_messages(caplog)
    assert line.startswith(f"{NAME}: generation_config.json cannot be downloaded (")
    assert line.endswith(f"; the copy in the cache is used, commit {cached}")


def test_a_slow_download_is_not_taken_for_a_stalled_one(local_hub, bart):
    (bart / "model.safetensors").write_bytes(bytes(2**19))
    local_hub.publish(NAME, bart)
    hub.snapshot(NAME)
    local_hub.silence("$^")
    local_hub.pieces, local_hub.pause = 4, SHORT * 0.6  # altogether longer than without a byte
    assert (hub.local_folder(NAME) / "model.safetensors").stat().st_size == 2**19


def test_many_small_files_of_a_new_commit_may_take_longer_than_an_answer(
    cached, local_hub, tmp_path, monkeypatch
):
    newer = local_hub.publish(NAME, write_bart(tmp_path / "changed", seed=7))
    monkeypatch.setattr(hub_requests, "ANSWER_SECONDS", SHORT)
    local_hub.delay = SHORT / 3  # of one request for each of four small files
    assert hub.snapshot(NAME).commit == newer


def test_a_download_that_starts_again_and_again_is_taken_for_a_stalled_one(monkeypatch):
    monkeypatch.setattr(hub_requests, "STALL_SECONDS", SHORT)
    is_over, start = threading.Event(), time.monotonic()

    def request(bar_class):
        with bar_class(total=1000) as bar:
            while not is_over.wait(0.1) and time.monotonic() - start < 3:
                bar.update(500)
                bar.update(-500)

    with pytest.raises(TimeoutError):
        hub_requests.with_time_limit(None, request)
    is_over.set()


def test_the_time_in_which_another_process_downloads_is_not_limited(local_hub, bart):
    commit = local_hub.publish(NAME, bart)
    local_hub.silence("$^")
    lock = hub.Path(constants.HF_HUB_CACHE, f".locks/models--facebook--bart-base/{commit}.lock")
    lock.parent.mkdir(parents=True)
    with ExitStack() as other:
        other.enter_context(FileLock(lock, thread_local=False))  # the timer's thread releases it
        release = threading.Timer(2 * SHORT, other.close)
        release.start()
        assert (hub.local_folder(NAME) / "model.safetensors").is_file()
        assert not release.is_alive()


def test_messages_of_the_client_about_its_attempts_are_not_shown(cached, local_hub, tmp_path, monkeypatch):
    client = logging.getLogger("huggingface_hub")
    level = client.level
    shown = io.StringIO()
    monkeypatch.setattr(client.handlers[0], "stream", shown)
    local_hub.publish(NAME, write_bart(tmp_path / "changed", seed=7))
    monkeypatch.setattr(hub_requests, "ANSWER_SECONDS", SHORT)
    local_hub.fails, local_hub.status = "/resolve/", 503
    load()
    assert sum("config.json" in path for path in local_hub.requests) > 1  # it has tried again
    assert shown.getvalue() == ""
    assert client.level == level
    client.warning("of another download")
    assert shown.getvalue() == "of another download\n"


@pytest.mark.parametrize(("variable", "seconds"), [("5", 10), ("20", 20), ("600", 30)])
def test_the_clients_own_variable_raises_the_time_limit(variable, seconds):
    program = "from routing_moe.io.hub_requests import ANSWER_SECONDS; print(ANSWER_SECONDS)"
    env = os.environ | {"HF_HUB_ETAG_TIMEOUT": variable}
    assert int(subprocess.check_output([sys.executable, "-c", program], env=env)) == seconds


# ---- what is asked and loaded


def test_a_model_in_the_cache_is_asked_for_once(cached, local_hub):
    load()
    assert local_hub.requests == [f"api/models/{NAME}/revision/main"]


def test_model_configuration_and_tokenizer_are_of_one_commit(local_hub, bart, tmp_path):
    local_hub.publish(NAME, bart)
    load_bart_config(NAME)
    local_hub.publish(NAME, write_bart(tmp_path / "changed", seed=7))
    _, loaded, _ = load()
    assert torch.equal(weight(loaded), weight(load_bart(bart)))


def test_a_new_commit_of_the_hub_is_loaded(cached, local_hub, tmp_path, monkeypatch):
    changed = write_bart(tmp_path / "changed", seed=7)
    newer = local_hub.publish(NAME, changed)
    _, loaded, _ = load()
    assert torch.equal(weight(loaded), weight(load_bart(changed)))
    assert hub.commits() == {NAME: newer}
    forget(monkeypatch)
    local_hub.silence()
    assert hub.snapshot(NAME).commit == newer  # the cache has it now as that of main


def test_a_name_without_organisation_is_found(local_hub, bart):
    local_hub.publish("bart-base", bart)
    _, loaded, _ = load("bart-base")
    assert torch.equal(weight(loaded), weight(load_bart(bart)))


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "<commit>"])
def test_a_revision_can_be_given(revision, local_hub, bart, tmp_path, monkeypatch):
    commit = local_hub.publish(NAME, bart, revision)
    local_hub.publish(NAME, write_bart(tmp_path / "changed", seed=7))
    name = f"{NAME}@{revision.replace('<commit>', commit)}"
    for answers in (True, False):
        if not answers:
            local_hub.silence()
        forget(monkeypatch)
        _, loaded, _ = load(name)
        assert torch.equal(weight(loaded), weight(load_bart(bart)))
        assert hub.commits() == {name: commit}


def test_a_commit_in_the_cache_is_loaded_without_a_request(local_hub, bart, monkeypatch):
    name = f"{NAME}@{local_hub.publish(NAME, bart)}"
    load(name)
    forget(monkeypatch)
    local_hub.requests.clear()
    load(name)
    assert not local_hub.requests


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{NAME}@v9", "has no revision 'v9'; give a branch, a tag or all 40 characters of a commit"),
        (f"{NAME}@", "give a branch, a tag or a commit after the @"),
        ("facebook/bart base", "no such folder, and not a hub name"),
        ("someone/private", "has no model someone/private, or only for users who log in"),
        ("facebook/readme", "facebook/readme has no config.json"),
    ],
)
def test_a_wrong_name_is_one_clear_error(name, message, local_hub, bart, tmp_path):
    local_hub.publish(NAME, bart)
    (tmp_path / "readme").mkdir()
    (tmp_path / "readme/README.md").write_text("nothing else")
    local_hub.publish("facebook/readme", tmp_path / "readme")
    with pytest.raises(InputError, match=message) as failed:
        load(name)
    assert len(failed.value.faults) == 1
    assert str(failed.value).startswith(f"{name}: ")


def test_weights_for_other_libraries_are_not_downloaded(local_hub, bart):
    others = ["flax_model.msgpack", "tf_model.h5", "rust_model.ot", "pytorch_model.bin", "onnx/model.onnx"]
    (bart / "onnx").mkdir()
    for name in others:
        (bart / name).write_bytes(b"of another library")
    local_hub.publish(NAME, bart)
    folder = hub.local_folder(NAME)
    wanted = {path.name for path in bart.iterdir() if path.is_file()} - set(others)
    assert {path.name for path in folder.iterdir()} == wanted
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= wanted


def test_the_files_that_loading_needs_are_chosen():
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    bins = ["pytorch_model.bin", "merges.txt", "config.json", "spiece.model"]
    assert model_files.files_to_load([*bins, "README.md"]) == [*sorted(bins[1:]), bins[0]]
    assert model_files.files_to_load([*shards, *bins[:1], "model.safetensors.index.json"])[1:] == shards
    assert model_files.weights_among([*shards[:1], "model.fp16.safetensors"]) == []
    encoder = ["1_Pooling/config.json", "2_Dense/model.safetensors", "checkpoint-5/model.safetensors"]
    assert model_files.files_to_load([*encoder, "model.safetensors"]) == [
        encoder[0],
        "model.safetensors",
        encoder[1],
    ]


def test_sharded_weights_are_loaded_once_all_are_there(local_hub, bart, monkeypatch):
    model = load_bart(bart)
    shutil.rmtree(bart / "onnx", ignore_errors=True)
    (bart / "model.safetensors").unlink()
    model.save_pretrained(bart, max_shard_size="20KB")
    assert (bart / "model.safetensors.index.json").is_file()
    local_hub.publish(NAME, bart)
    _, loaded, _ = load()
    assert torch.equal(weight(loaded), weight(model))
    (snapshot,) = hub.Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    next(snapshot.glob("model-*-of-*.safetensors")).unlink()
    forget(monkeypatch)
    local_hub.silence()
    with pytest.raises(InputError, match="has no complete copy"):
        load()


# ---- several processes; what is recorded


def test_workers_load_the_commit_of_the_main_process(cached, local_hub, tmp_path, monkeypatch):
    load()
    variables = worker_environment(2)
    local_hub.publish(NAME, write_bart(tmp_path / "changed", seed=7))
    forget(monkeypatch)
    with environment(variables):
        local_hub.requests.clear()
        load()
        assert hub.commits() == {NAME: cached}
        assert not local_hub.requests


def test_ranks_load_the_commit_of_the_main_process(cached, local_hub, tmp_path):
    local_hub.publish(NAME, write_bart(tmp_path / "changed", seed=7))
    load_bart_config(NAME)
    assert hub.commits() != {NAME: cached}
    hub.use_commits({NAME: cached})
    load()
    assert hub.commits() == {NAME: cached}


def test_checksums_of_a_start_include_configuration_and_tokenizer(local_hub, bart):
    local_hub.publish(NAME, bart)
    assert SavedBart(NAME).checksums() == SavedBart(str(bart)).checksums()
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= SavedBart(NAME).checksums().keys()


def test_a_mixture_of_a_hub_name_does_not_depend_on_where_the_cache_is(local_hub, bart, tmp_path):
    local_hub.publish(NAME, bart)
    model = RoutingBartForConditionalGeneration.from_bart(NAME, 2)
    model.save_pretrained(tmp_path / "saved")
    load_tokenizer(NAME, model.config.vocab_size).save_pretrained(tmp_path / "saved")
    for file in (tmp_path / "saved").glob("*.json"):
        assert "cache" not in file.read_text().replace("use_cache", "")
