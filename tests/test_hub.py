"""Models by hub name: from the cache without a request, else a download; what commands record of them."""

import json
import shutil

import pytest
from tiny_backbones import decoder_only_tokenizer, make_plain
from tiny_grids import QUICK, finetune, write_few_shot_gym
from tiny_runs import NO_LEARNING, run, write_bart, write_gym

from dataloader.errors import InputError
from routing_moe import RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.checkpoints.find import SavedPlain
from routing_moe.io import hub

NAME = "facebook/bart-base"


@pytest.fixture
def commit(hub_client, tmp_path):
    """The commit of a BART as facebook/bart-base."""
    return hub_client.publish(NAME, write_bart(tmp_path / "commit1"))


def test_a_model_is_downloaded_once_and_its_commit_is_known(hub_client, commit):
    folder = hub.local_folder(NAME)
    hub._folders.clear()  # as in another process
    assert hub.local_folder(NAME) == hub.known_folder(NAME) == folder
    assert hub_client.requests == [NAME]
    assert hub.commits() == {NAME: commit}
    assert SavedPlain(NAME).config.d_model == SavedPlain(str(folder)).config.d_model


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_an_incomplete_copy_is_completed(file, hub_client, commit):
    (hub.local_folder(NAME) / file).unlink()
    hub._folders.clear()
    assert (hub.local_folder(NAME) / file).is_file()
    assert hub_client.requests == [NAME, NAME]


def test_a_mixture_and_its_base_are_downloaded_with_the_given_token(hub_client, tmp_path):
    make_plain("qwen2").save_pretrained(tmp_path / "base")
    decoder_only_tokenizer(["a"], has_start=False).save_pretrained(tmp_path / "base")
    hub_client.publish("me/base", tmp_path / "base")
    RoutedModel.from_backbone("me/base", num_experts=2, task_names=["a"]).save_pretrained(tmp_path / "saved")
    hub_client.publish("me/moe", tmp_path / "saved")
    hub._folders.clear()
    hub_client.cached.clear()
    hub_client.tokens.clear()
    RoutedModel.from_pretrained("me/moe", token="mine")
    assert hub_client.tokens == {"me/moe": "mine", "me/base": "mine"}
    assert (hub.known_folder("me/base") / "chat_template.jinja").is_file()
    fields = dict(num_experts=2, task_names=["a"], expert_kind="lora")
    hub_client.publish("me/bart", write_bart(tmp_path / "bart"))
    bart = RoutingBartForConditionalGeneration.from_bart("me/bart", **fields)
    bart.save_pretrained(tmp_path / "lora")
    hub._folders.clear()
    hub_client.cached.clear()
    RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "lora", token="mine")
    assert hub_client.tokens["me/bart"] == "mine"


def test_without_a_network_a_copy_without_tokenizer_is_used(hub_client, commit):
    (hub.local_folder(NAME) / "tokenizer.json").unlink()
    hub._folders.clear()
    hub_client.is_offline = True
    assert (hub.local_folder(NAME) / "config.json").is_file()


def test_shards_are_used_once_all_are_there(tmp_path):
    for number, is_complete in ((1, False), (2, True)):
        (tmp_path / f"model-{number:05d}-of-00002.safetensors").touch()
        assert hub.has_weights(tmp_path, "model*.safetensors") is is_complete


def test_a_revision_can_be_given_and_pickled_weights_of_a_run_are_not_downloaded(hub_client, tmp_path):
    old = write_bart(tmp_path / "commit2")
    assert hub_client.publish("me/run", old, "v1") == hub.folder_of_run("me/run@v1").name
    (old / "model.safetensors").rename(old / "pytorch_model.bin")
    shutil.rmtree(tmp_path / "cache")
    hub._folders.clear()
    with pytest.raises(InputError, match=r"me/run@v1: has no model\*.safetensors"):
        hub.folder_of_run("me/run@v1")
    assert not [*(tmp_path / "cache").rglob("pytorch_model.bin")]
    assert (hub.local_folder("me/run@v1") / "pytorch_model.bin").is_file()
    with pytest.raises(InputError, match=r"me/run@v1: has no model\*.safetensors"):
        hub.folder_of_run("me/run@v1")  # although this process has found the pickled ones


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facebook/none", r"facebook/none: no such folder, and no model of the hub .*\(no answer\)"),
        ("a b", "not a hub name"),
        ("models/moe2", r"not found on the hub \(no answer\); did you mean 'moe'"),
        ("bart@refs/pr/1", r"bart@refs/pr/1: no such folder, and no model of the hub .*\(no answer\)"),
    ],
)
def test_a_wrong_name_is_one_clear_error(name, message, hub_client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/moe").mkdir(parents=True)
    with pytest.raises(InputError, match=message):
        hub.local_folder(name)


def test_a_path_in_an_existing_folder_is_no_hub_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert all(map(hub.is_on_hub, ["me/run", "models/run@v1", "me/run@refs/pr/1"]))
    assert not any(map(hub.is_on_hub, ["models/run", "run", "./me/run", "/me/run", "me/run/"]))


@pytest.mark.usefixtures("no_gpu")
def test_runs_and_grids_record_the_commit_and_a_grid_is_not_continued_with_another(
    hub_client, commit, tmp_path, capsys
):
    gym, folder = write_gym(tmp_path / "gym"), tmp_path / "grid"
    few_shot = write_few_shot_gym(tmp_path / "few_shot", gym)
    chosen = QUICK | dict(learning_rate_list=[0.03])
    assert run(gym, NAME, tmp_path / "run", **NO_LEARNING | dict(do_predict=None)) == 0
    assert finetune(few_shot, NAME, folder, **chosen) == 0
    recorded = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in ("run", "grid")}
    assert recorded["run"]["hub"] == recorded["grid"]["hub"] == {NAME: commit}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= recorded["grid"]["start"].keys()
    hub_client.publish(NAME, write_bart(tmp_path / "another", seed=7))
    hub_client.snapshot_download(NAME, allow_patterns=["*"])  # as `hf download`
    hub._folders.clear()
    assert finetune(few_shot, NAME, folder, **chosen | dict(learning_rate_list=[0.03, 0.1])) == 2
    words = f"its grid started from other files (weights, settings, task vectors) than those of {NAME}"
    assert words in capsys.readouterr().err
