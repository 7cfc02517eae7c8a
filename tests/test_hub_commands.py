"""Commands with a model of the hub: what they record, and that a changed commit is noticed."""

import json

import pytest
from huggingface_hub import hf_hub_download
from local_hub import forget
from tiny_grids import QUICK, finetune, write_few_shot_gym
from tiny_runs import NO_LEARNING, run, write_bart, write_gym

NAME = "facebook/bart-base"
pytestmark = pytest.mark.usefixtures("no_gpu")


@pytest.fixture
def published(local_hub, tmp_path):
    """A BART as facebook/bart-base; returns its commit."""
    return local_hub.publish(NAME, write_bart(tmp_path / "bart"))


@pytest.fixture
def publish_another(local_hub, tmp_path, monkeypatch):
    """publish_another(): another BART takes the name, also in the cache, and the next command starts."""

    def publish() -> None:
        forget(monkeypatch)
        local_hub.publish(NAME, write_bart(tmp_path / "another", seed=7))
        hf_hub_download(NAME, "config.json")

    return publish


def recorded(folder) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_training_records_the_commit_that_it_started_from(published, publish_another, tmp_path):
    gym, out = write_gym(tmp_path / "gym"), tmp_path / "run"
    short = NO_LEARNING | dict(do_predict=None)
    assert run(gym, NAME, out, **short) == 0
    assert recorded(out)["hub"] == {NAME: published}
    publish_another()
    assert run(gym, NAME, out, resume=True, **short) == 0
    assert recorded(out)["hub"] == {NAME: published}


def test_fine_tuning_records_the_commit_and_is_not_continued_with_another(
    published, publish_another, tmp_path, capsys
):
    gym, out = write_few_shot_gym(tmp_path / "few_shot", write_gym(tmp_path / "gym")), tmp_path / "grid"
    chosen = QUICK | dict(learning_rate_list=[0.03])
    assert finetune(gym, NAME, out, **chosen) == 0
    assert recorded(out)["hub"] == {NAME: published}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= recorded(out)["start"].keys()
    publish_another()
    assert finetune(gym, NAME, out, **chosen | dict(learning_rate_list=[0.03, 0.1])) == 2
    assert f"its grid started from other files (weights, settings, task vectors) than those of {NAME}" in (
        capsys.readouterr().err
    )
    assert finetune(gym, f"{NAME}@{published}", tmp_path / "again", **chosen) == 0
    assert recorded(tmp_path / "again")["start"] == recorded(out)["start"]
