"""Models and runs by hub name: what a push uploads, the name in every command, the cache and downloads."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard, constants, get_token
from tiny_backbones import decoder_only_tokenizer, make_plain
from tiny_grids import QUICK, finetune, write_few_shot_gym
from tiny_runs import NO_LEARNING, run, write_bart, write_gym

from dataloader.building.report import UNCOMPARED, Line, write_report
from dataloader.errors import InputError
from routing_moe import RoutedModel, RoutingBartForConditionalGeneration
from routing_moe.checkpoints.find import SavedPlain
from routing_moe.cli import ablate, inspect_routes, merge, push, report, show_scores, train
from routing_moe.io import hub

NAME, PLAIN = "my-group/moe", "facebook/bart-base"
pytestmark = pytest.mark.usefixtures("no_gpu", "quick_pictures", "without_chart_library")


@pytest.fixture(scope="module")
def scored(finished, world, tmp_path_factory):
    """A copy of the finished run, with scores of the unseen task. Must not be changed."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("scored") / "run")
    assert train.main(["--do_predict", "--predict_split", "test", "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def written(scored, tmp_path_factory):
    """The folder that a push of the run would upload."""
    folder = tmp_path_factory.mktemp("written") / "shared"
    assert push.main([str(scored), NAME, "--dry_run", str(folder)]) == 0
    return folder


@pytest.fixture
def online(hub_client, monkeypatch):
    """The client, and a token that may write to it."""
    monkeypatch.setenv("HF_TOKEN", "may write")
    assert get_token() == "may write"
    return hub_client


@pytest.fixture
def pulled(hub_client, written, monkeypatch, tmp_path):
    """The run by its name only: no gym of its settings and no file of it is where it was trained."""
    hub_client.publish(NAME, written)
    monkeypatch.chdir(tmp_path)
    return hub_client


def same_weights(*places) -> bool:
    models = [RoutingBartForConditionalGeneration.from_pretrained(place) for place in places]
    return all(map(torch.equal, *(model.parameters() for model in models)))


def files_in(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# ---- what is written


def test_the_folder_has_what_loading_and_explaining_need_and_no_pickle(written, scored):
    names = files_in(written)
    assert {"model.safetensors", "config.json", "tokenizer.json", "id2task.json", "task_vecs.npy"} <= names
    assert {"run.json", "cost.json", "losses.csv", "ontology.json", "README.md"} <= names
    assert {"best/eval-test-performance.csv", "best/eval-test_tasks-test-performance.csv"} <= names
    assert len([name for name in names if name.endswith("-steps/route.npy")]) == 1
    assert not [name for name in names if name.endswith((".pt", ".bin", ".pkl", ".jsonl", ".log"))]
    assert (scored / "last/training_state.pt").is_file()
    assert same_weights(written, scored / "best")


def test_the_card_has_scores_with_baselines_and_what_the_routes_have_seen(written, scored):
    card = ModelCard.load(written / "README.md")
    unseen = pd.read_csv(scored / "best/eval-test_tasks-test-performance.csv").iloc[0]
    row = next(line for line in card.text.splitlines() if line.startswith("| plural_"))
    shown = [cell.strip() for cell in row.strip("| ").split("|")]
    scores = [f"{unseen['performance']:.3f}", str(unseen["n"])]
    scores += [f"{unseen[name]:.3f}" for name in ("constant", "copy")]  # no chance without options
    assert shown == [unseen["sample"], unseen["metric"], *scores, unseen["route"], unseen["vector_seen"]]
    assert f"commit {json.loads((scored / 'run.json').read_text())['git'] or 'unknown'}" in card.text


def test_a_checkpoint_without_a_run_has_a_card(scored, tmp_path):
    alone = shutil.copytree(scored / "best", tmp_path / "alone")
    (alone / "chat_template.jinja").write_text("{{ messages }}</s>")
    assert push.main([str(alone), NAME, "--dry_run", str(tmp_path / "shared"), "--license", "mit"]) == 0
    assert (tmp_path / "shared/chat_template.jinja").read_text() == "{{ messages }}</s>"
    card = ModelCard.load(tmp_path / "shared/README.md")
    assert "It is not scored." in card.text
    assert card.data.license == "mit"
    assert not [name for name in files_in(tmp_path / "shared") if "/" in name or "eval" in name]


def test_terms_of_use_are_those_of_the_gyms_report_unless_a_task_has_another_source(scored, world, tmp_path):
    changed, gym = (shutil.copytree(place, tmp_path / place.name) for place in (scored, world.gym))
    described = json.loads((changed / "run.json").read_text())
    described["settings"]["train_dir"] = str(gym)
    (changed / "run.json").write_text(json.dumps(described))
    source = "hub data set someone/colours, all"
    lines = [Line(task, UNCOMPARED, source=source, terms="CC BY-NC 4.0") for task in ("colour", "count")]
    write_report(gym, lines)
    (gym / "count/source.json").write_text(json.dumps({"13": "my_rows.csv"}))
    assert push.main([str(changed), NAME, "--dry_run", str(tmp_path / "shared")]) == 0
    assert "data: CC BY-NC 4.0 (colour)." in (tmp_path / "shared/README.md").read_text()


@pytest.mark.parametrize(
    ("run", "words", "message"),
    [
        ("run", ["my group/moe"], "not a name on the hub; give owner/name"),
        ("here", [NAME], "is neither a run, with best/config.json, nor a checkpoint"),
        ("run", [NAME, "--dry_run", "."], "exists already"),
        ("published", [NAME, "--dry_run", "new"], "has no model.safetensors"),
        ("run", [NAME, "--private"], "exists and is public; change that in its settings"),
    ],
)
def test_a_push_that_is_not_possible_is_one_clear_error(
    run, words, message, online, scored, published_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    online.publish(NAME, tmp_path)
    places = {"run": scored, "here": tmp_path, "published": published_run}
    assert push.main([str(places[run]), *words]) == 2
    assert message in capsys.readouterr().err


def test_without_network_or_a_token_that_may_write_nothing_is_pushed(online, scored, monkeypatch, capsys):
    online.is_offline = True
    assert push.main([str(scored), NAME]) == 2
    assert "no answer" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "may read")
    online.is_offline = False
    assert push.main([str(scored), NAME]) == 2
    assert "403 Forbidden" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    assert push.main([str(scored), NAME]) == 2
    assert "no token for the hub: hf auth login, or HF_TOKEN" in capsys.readouterr().err
    assert online.folders == {}


# ---- uploading


def test_a_push_uploads_the_folder_and_a_second_one_replaces_it(online, scored, written, tmp_path, capsys):
    assert push.main([str(scored), NAME, "--private"]) == 0
    commit = online.revisions[NAME, "main"]
    assert capsys.readouterr().out.splitlines()[-1] == f"{online.url}/{NAME} (commit {commit})"
    assert online.private[NAME]
    assert files_in(online.folders[commit]) == files_in(written) | {".gitattributes"}
    weights = [(place / "model.safetensors").read_bytes() for place in (online.folders[commit], written)]
    assert weights[0] == weights[1]
    before = shutil.copytree(online.folders[commit], tmp_path / "before")
    of_others = {"LICENSE", "docs/example.json", ".gitattributes"}
    (before / "docs").mkdir()
    for name in (*of_others, "model-00001-of-00002.safetensors"):
        (before / name).touch()
    online.publish(NAME, before)
    alone = str(shutil.copytree(scored / "best", tmp_path / "alone"))
    assert push.main([alone, NAME]) == 0
    assert push.main([alone, NAME, "--dry_run", str(tmp_path / "fewer")]) == 0
    names = files_in(online.folders[online.revisions[NAME, "main"]])
    assert names == files_in(tmp_path / "fewer") | of_others


def test_save_pretrained_names_the_method_that_uploads_all_files(scored, tmp_path):
    model = RoutingBartForConditionalGeneration.from_pretrained(scored / "best")
    with pytest.raises(InputError, match=r"call model\.push_to_hub"):
        model.save_pretrained(tmp_path / "moe", push_to_hub=True)


# ---- the run by its name


def test_prediction_by_name_equals_that_of_the_run_also_without_network(pulled, scored, world, monkeypatch):
    words = ["--do_predict", "--checkpoint", NAME, "--train_dir", str(world.gym), "--output_dir", "out"]
    assert train.main(words) == 0
    commit = pulled.revisions[NAME, "main"]
    columns = ["task_prefix", "performance", "n", "constant"]
    mine = pd.read_csv(scored / "best/eval-test-performance.csv")[columns]
    assert mine.equals(pd.read_csv("out/best/eval-test-performance.csv")[columns])
    assert json.loads(Path("out/best/eval-settings.json").read_text())["hub"] == {NAME: commit}
    assert {path.name for path in Path("out").iterdir() if path.is_dir()} == {"best"}
    hub._folders.clear()
    pulled.is_offline = True
    assert hub.known_folder(NAME).name == commit  # for the costs of what is trained from a merge of it
    assert train.main([*words, "--predict_split", "test"]) == 0
    mine, theirs = (
        pd.read_csv(Path(place) / "eval-test_tasks-test-performance.csv")
        for place in (scored / "best", "out/best")
    )
    pd.testing.assert_frame_equal(mine, theirs)


def test_training_by_name_continues_from_the_weights_and_knows_their_cost(pulled, scored, world):
    flags = dict(checkpoint=NAME, initialize_from_vanilla=None, init_eps=None, model=None)
    flags |= NO_LEARNING
    assert run(world.gym, world.bart, "further", **flags) == 0
    cost, start = (json.loads(Path(place, "cost.json").read_text()) for place in ("further", scored))
    assert cost["total_flops_with_start"] == cost["total_flops"] + start["total_flops"]
    assert same_weights("further/best", scored / "best")


def test_commands_with_the_name_equal_those_with_the_run(pulled, scored, world, tmp_path, capsys):
    gym = write_few_shot_gym(tmp_path / "few_shot", world.gym)
    flags = QUICK | dict(learning_rate_list=[0.03], train_dir=world.gym, moe_init=True, total_steps=1)
    tables, shown = [], []
    for place in (NAME, scored):
        out = tmp_path / Path(place).name
        assert finetune(gym, world.bart, out / "grid", **flags, eval_period=1, init_dir=place) == 0
        words = ["--routes_from", str(place), "--model", str(world.bart)]
        assert merge.main([*words, "--output_dir", str(out / "two_stage")]) == 0
        tables.append(pd.read_csv(out / "grid/results.csv"))
        capsys.readouterr()
        assert show_scores.main([str(place)]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    pd.testing.assert_frame_equal(*tables)
    assert same_weights(*(tmp_path / Path(place).name / "two_stage/init" for place in (NAME, scored)))
    assert report.main([NAME, "--output_file", "report.html"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert f"Routes of {NAME}" in page
    assert '"words"' in page  # of the ontology that came with it


def test_what_the_card_recommends_works(pulled):
    card = ModelCard.load(pulled.folders[pulled.revisions[NAME, "main"]] / "README.md")
    (code,) = re.findall("```python\n(.*?)```", card.text, re.DOTALL)
    exec(code, {"texts": ["cat", "mouse"]})


def test_an_analysis_of_a_name_needs_a_place_to_write(pulled, capsys):
    assert report.main([NAME]) == 2
    assert f"--output_file: must be given for a run of the hub, {NAME}" in capsys.readouterr().err
    for command in (inspect_routes, ablate):
        assert command.main([NAME]) == 2
        assert f"--output_dir: must be given for a run of the hub, {NAME}" in capsys.readouterr().err


# ---- from the cache without a request, else a download


@pytest.fixture
def commit(hub_client, tmp_path):
    """The commit of a BART as facebook/bart-base."""
    return hub_client.publish(PLAIN, write_bart(tmp_path / "commit1"))


def test_a_model_is_downloaded_once_and_its_commit_is_known(hub_client, commit):
    folder = hub.local_folder(PLAIN)
    hub._folders.clear()  # as in another process
    assert hub.local_folder(PLAIN) == hub.known_folder(PLAIN) == folder
    assert hub_client.requests == [PLAIN]
    assert hub.commits() == {PLAIN: commit}
    assert SavedPlain(PLAIN).config.d_model == SavedPlain(str(folder)).config.d_model


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_an_incomplete_copy_is_completed(file, hub_client, commit):
    (hub.local_folder(PLAIN) / file).unlink()
    hub._folders.clear()
    assert (hub.local_folder(PLAIN) / file).is_file()
    assert hub_client.requests == [PLAIN, PLAIN]


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
    (hub.local_folder(PLAIN) / "tokenizer.json").unlink()
    hub._folders.clear()
    hub_client.is_offline = True
    assert (hub.local_folder(PLAIN) / "config.json").is_file()


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


def test_runs_and_grids_record_the_commit_and_a_grid_is_not_continued_with_another(
    hub_client, commit, tmp_path, capsys
):
    gym, folder = write_gym(tmp_path / "gym"), tmp_path / "grid"
    few_shot = write_few_shot_gym(tmp_path / "few_shot", gym)
    chosen = QUICK | dict(learning_rate_list=[0.03])
    assert run(gym, PLAIN, tmp_path / "run", **NO_LEARNING | dict(do_predict=None)) == 0
    assert finetune(few_shot, PLAIN, folder, **chosen) == 0
    recorded = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in ("run", "grid")}
    assert recorded["run"]["hub"] == recorded["grid"]["hub"] == {PLAIN: commit}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= recorded["grid"]["start"].keys()
    hub_client.publish(PLAIN, write_bart(tmp_path / "another", seed=7))
    hub_client.snapshot_download(PLAIN, allow_patterns=["*"])  # as `hf download`
    hub._folders.clear()
    assert finetune(few_shot, PLAIN, folder, **chosen | dict(learning_rate_list=[0.03, 0.1])) == 2
    words = f"its grid started from other files (weights, settings, task vectors) than those of {PLAIN}"
    assert words in capsys.readouterr().err
