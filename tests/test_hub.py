"""Models by hub name: from the cache without a request, else one commit of the hub, else one clear error."""

import shutil
import socket

import pytest
import torch
from huggingface_hub import constants
from local_hub import forget, use_endpoint
from tiny_runs import write_bart

from dataloader.errors import InputError
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.checkpoints.find import SavedBart
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.io import hub
from routing_moe.io.executor import worker_environment
from routing_moe.model.loading import load_bart, load_bart_config

NAME = "facebook/bart-base"


@pytest.fixture
def bart(tmp_path):
    return write_bart(tmp_path / "bart")


def load(name: str = NAME):
    """Loads what a command does: configuration, weights and tokenizer."""
    config = load_bart_config(name)
    bart = load_bart(name)
    return config, bart, load_tokenizer(name, bart.config.vocab_size)


def weight(bart) -> torch.Tensor:
    return bart.model.shared.weight


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


def failing(running, patch):
    running.status = 403


def offline(running, patch):
    patch.setattr(constants, "HF_HUB_OFFLINE", True)


NETWORKS = {
    silent: r"cannot be reached \(.*timed out",
    refusing: r"cannot be reached \(.*Connection refused",
    no_address: r"cannot be reached \(.*Name or service not known",
    failing: "answers with status 403",
    offline: "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, which forbids downloads",
}


# ---- the cache, and a network that fails


def test_a_complete_copy_in_the_cache_is_used_without_a_request(cached, bart, local_hub, tmp_path):
    local_hub.publish(NAME, write_bart(tmp_path / "newer", seed=7))
    _, loaded, _ = load()
    assert torch.equal(weight(loaded), weight(load_bart(bart)))
    assert hub.commits() == {NAME: cached}
    assert not local_hub.requests


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_without_a_copy_one_error_says_what_failed(network, local_hub, monkeypatch):
    network(local_hub, monkeypatch)
    with pytest.raises(InputError, match=NETWORKS[network]) as failed:
        load()
    (problem,) = failed.value.problems
    assert problem.startswith(f"{NAME}: no such folder, and no model of the hub: ")
    assert f"the cache {constants.HF_HUB_CACHE} has no complete copy" in problem
    assert problem.endswith(
        "; for a trial there is a small BART: --model task/skill_gym/tiny_bart (scripts: "
        "MODEL=task/skill_gym/tiny_bart)"
    )


def test_a_copy_without_its_weights_is_not_used(cached, local_hub):
    (snapshot,) = hub.Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    (snapshot / "model.safetensors").unlink()
    local_hub.silence()
    with pytest.raises(InputError, match="has no complete copy"):
        load()


def test_a_copy_without_tokenizer_is_completed_or_used_as_it_is(cached, local_hub, monkeypatch):
    (snapshot,) = hub.Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*")
    (snapshot / "tokenizer.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hub.snapshot(NAME).commit == cached
    forget(monkeypatch)
    load()
    assert (snapshot / "tokenizer.json").is_file()


def test_an_interrupted_download_is_not_taken_for_a_complete_one(local_hub, bart, monkeypatch):
    commit = local_hub.publish(NAME, bart)
    local_hub.missing = "model.safetensors"
    with pytest.raises(InputError):
        load()
    assert hub.in_cache(NAME) is None
    local_hub.missing = None
    load()
    assert hub.in_cache(NAME).commit == commit


# ---- what is asked and loaded


def test_a_model_is_asked_for_once(local_hub, bart):
    local_hub.publish(NAME, bart)
    load()
    load()
    assert local_hub.requests.count(f"api/models/{NAME}/revision/main") == 1


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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{NAME}@v9", "has no revision 'v9'; give a branch, a tag or all 40 characters of a commit"),
        (f"{NAME}@", "give a branch, a tag or a commit after the @"),
        (f"{NAME}@../../x", "'../../x' is not the name of a branch, a tag or a commit"),
        (f"{NAME}@/etc", "'/etc' is not the name of a branch, a tag or a commit"),
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
    assert len(failed.value.problems) == 1
    assert str(failed.value).startswith(f"{name}: ")


def test_the_files_that_loading_needs_are_chosen():
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    bins = ["pytorch_model.bin", "merges.txt", "config.json", "spiece.model"]
    assert hub.files_to_load([*bins, "README.md"]) == [*sorted(bins[1:]), bins[0]]
    assert hub.files_to_load([*shards, *bins[:1], "model.safetensors.index.json"])[1:] == shards
    assert hub.weights_among([*shards[:1], "model.fp16.safetensors"]) == []
    encoder = ["1_Pooling/config.json", "2_Dense/model.safetensors", "checkpoint-5/model.safetensors"]
    assert hub.files_to_load([*encoder, "model.safetensors"]) == [
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
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    local_hub.requests.clear()
    load()
    assert hub.commits() == {NAME: cached}
    assert not local_hub.requests


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
