"""Sharing a run: what is written and uploaded, and the run by its name in every command."""

import json
import re
import shlex
import shutil
from getpass import getuser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard, constants, get_token
from local_hub import forget, use_endpoint
from tiny_grids import QUICK, finetune, write_few_shot_gym
from tiny_runs import NO_LEARNING, ROOT, run, typed

from dataloader.building.report import UNCOMPARED, Line, write_report
from routing_moe import Routed, RoutingBartForConditionalGeneration
from routing_moe.cli import ablate, entry, inspect_routes, merge, push, report, show_scores, train
from routing_moe.io import hub

NAME = "my-group/moe"
pytestmark = pytest.mark.usefixtures("no_gpu")


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
def online(local_hub, monkeypatch):
    """The local hub, and a token that may write to it."""
    monkeypatch.setenv("HF_TOKEN", "may write")
    assert get_token() == "may write"
    return local_hub


@pytest.fixture
def pulled(local_hub, written, monkeypatch, tmp_path):
    """The run by its name only: no gym of its settings and no file of it is where it was trained."""
    local_hub.publish(NAME, written)
    monkeypatch.chdir(tmp_path)
    return local_hub


def same_weights(*places) -> bool:
    models = [RoutingBartForConditionalGeneration.from_pretrained(place) for place in places]
    return all(map(torch.equal, *(model.parameters() for model in models)))


def files_in(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# ---- what is written


def test_the_folder_has_what_loading_and_explaining_need_and_no_pickle(written, scored):
    names = files_in(written)
    assert {"model.safetensors", "config.json", "tokenizer.json", "id2task.json", "task_vecs.npy"} <= names
    assert {"run.json", "cost.json", "losses.csv", "ontology.json", "split.json", "routes.png"} <= names
    assert {"best/eval-test-performance.csv", "best/eval-test_tasks-test-performance.csv"} <= names
    assert len([name for name in names if name.endswith("-steps/route.npy")]) == 1
    assert not [name for name in names if name.endswith((".pt", ".bin", ".pkl", ".jsonl", ".log"))]
    assert (scored / "last/training_state.pt").is_file()
    assert same_weights(written, scored / "best")


def test_no_path_of_this_machine_is_shared(written, scored, world):
    assert str(world.gym) in (scored / "run.json").read_text()
    places = [world.gym.parent, scored.parent, ROOT, Path.home()]
    private = [str(place) for place in places] + [f"/{getuser()}/"]
    for name in files_in(written) - {"model.safetensors", "task_vecs.npy", "routes.png"}:
        text = (written / name).read_bytes().decode("utf-8", "replace")
        assert not [word for word in private if word in text], name
    described = json.loads((written / "run.json").read_text())
    assert described["settings"]["train_dir"] == world.gym.name
    assert described["command"].startswith("routing-moe train --")


def test_the_card_has_scores_with_baselines_what_routes_have_seen_and_costs(written, scored):
    card = ModelCard.load(written / "README.md")
    assert card.data.library_name == "routing-moe"
    unseen = pd.read_csv(scored / "best/eval-test_tasks-test-performance.csv").iloc[0]
    row = next(line for line in card.text.splitlines() if line.startswith("| plural_"))
    shown = [cell.strip() for cell in row.strip("| ").split("|")]
    scores = [f"{unseen['performance']:.3f}", str(unseen["n"])]
    scores += [f"{unseen[name]:.3f}" for name in ("constant", "copy")]  # no chance without options
    assert shown == [unseen["sample"], unseen["metric"], *scores, unseen["route"], unseen["vector_seen"]]
    results = {result.dataset_type: result for result in card.data.eval_results}
    assert results["plural"].metric_type == "rouge"
    assert results["plural"].metric_value == pytest.approx(unseen["performance"], abs=1e-4)
    assert results.keys() == {"colour", "count", "opposite", "plural"}
    described = json.loads((scored / "run.json").read_text())
    assert f"| seed | {described['settings']['seed']} |" in card.text
    assert described["git"] in card.text
    assert "2 experts in all 3 layers (2 encoder, 1 decoder), trained on 3 tasks. The task" in card.text
    assert "over 1 test file:" in card.text
    assert "| device | cpu, 1 process(es) |" in card.text
    assert f'model = Routed.load("{NAME}")' in card.text
    assert "(routes.png)" in card.text
    assert "| enc 0 |" in re.sub(" +", " ", card.text)


def test_a_checkpoint_without_a_run_says_what_is_unknown(scored, tmp_path):
    alone = shutil.copytree(scored / "best", tmp_path / "alone")
    assert push.main([str(alone), NAME, "--dry_run", str(tmp_path / "shared")]) == 0
    text = (tmp_path / "shared/README.md").read_text()
    assert "no run.json: command, data and costs of its training are unknown" in text
    assert text.count("not scored (") == 2
    assert "(routes.png)" in text  # of the checkpoint's router
    assert not [name for name in files_in(tmp_path / "shared") if "/" in name or "eval" in name]


def test_terms_of_use_of_the_data_are_those_of_the_gyms_report(scored, world, tmp_path):
    changed, gym = (shutil.copytree(place, tmp_path / place.name) for place in (scored, world.gym))
    described = json.loads((changed / "run.json").read_text())
    described["settings"]["train_dir"] = str(gym)
    (changed / "run.json").write_text(json.dumps(described))
    source = "hub data set someone/colours, all"
    colour = Line("colour", UNCOMPARED, source=source, terms="CC BY-NC 4.0")
    write_report(gym, [colour, Line("count", UNCOMPARED, source="raw file")])
    assert push.main([str(changed), NAME, "--dry_run", str(tmp_path / "shared")]) == 0
    card = ModelCard.load(tmp_path / "shared/README.md")
    assert "- CC BY-NC 4.0: colour\n" in card.text
    assert "For 3 of 4 tasks no terms of use are recorded" in card.text
    assert card.data.datasets == ["someone/colours"]


def test_a_task_with_the_name_of_a_recipe_but_other_rows_gets_no_terms_of_it(scored, world, tmp_path):
    changed, gym = (shutil.copytree(place, tmp_path / place.name) for place in (scored, world.gym))
    (gym / "colour").rename(gym / "glue-qqp")
    for file in (changed / "best/config.json", changed / "best/id2task.json"):
        file.write_text(file.read_text().replace('"colour"', '"glue-qqp"'))

    def card_of(source: str, train_dir: Path = gym) -> ModelCard:
        described = json.loads((changed / "run.json").read_text())
        described["settings"]["train_dir"] = str(train_dir)
        (changed / "run.json").write_text(json.dumps(described))
        (gym / "glue-qqp/source.json").write_text(json.dumps({"13": source}))
        shutil.rmtree(tmp_path / "shared", ignore_errors=True)
        assert push.main([str(changed), NAME, "--dry_run", str(tmp_path / "shared")]) == 0
        return ModelCard.load(tmp_path / "shared/README.md")

    own = card_of("my_rows.csv")
    assert "Quora" not in own.text
    assert own.data.datasets is None
    built = card_of("hub data set nyu-mll/glue, qqp")
    assert "may not be passed on: glue-qqp\n" in built.text
    assert built.data.datasets == ["nyu-mll/glue"]
    unknown = card_of("", tmp_path / "elsewhere")
    assert "(by the task's name: its source is not recorded): glue-qqp\n" in unknown.text
    assert unknown.data.datasets is None


def test_a_fine_tuned_checkpoint_is_not_pushed_and_the_advice_works(
    local_hub, scored, world, tmp_path, capsys
):
    gym = write_few_shot_gym(tmp_path / "few_shot", world.gym)
    flags = QUICK | dict(learning_rate_list=[0.03], route_training="logits", save_best=True)
    flags |= dict(moe_init=True, init_dir=scored)
    assert finetune(gym, world.bart, tmp_path / "grid", **flags) == 0
    (best,) = (tmp_path / "grid/models").iterdir()
    assert push.main([str(best), NAME, "--dry_run", str(tmp_path / "shared")]) == 2
    assert f"`hf upload OWNER/NAME {best}` uploads it without a card" in capsys.readouterr().err
    local_hub.publish(NAME, best)
    assert Routed.load(NAME).answer("naming", ["sun"]) == Routed.load(best).answer("naming", ["sun"])


# ---- uploading


def test_a_push_uploads_the_folder_and_a_second_one_replaces_all_files_of_the_first(
    online, scored, written, starts, tmp_path, capsys
):
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
    assert push.main([str(starts["one"]), NAME]) == 0
    assert push.main([str(starts["one"]), NAME, "--dry_run", str(tmp_path / "dense")]) == 0
    names = files_in(online.folders[online.revisions[NAME, "main"]])
    assert names == files_in(tmp_path / "dense") | of_others


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "no token for the hub: hf auth login, or HF_TOKEN"),
        ("wrong", "401 Unauthorized"),
        ("may read", "403 Forbidden"),
    ],
)
def test_a_token_that_may_not_write_is_one_clear_error(
    token, message, local_hub, scored, monkeypatch, capsys
):
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    assert push.main([str(scored), NAME]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_other_errors_of_a_push_are_one_clear_line_each(online, scored, tmp_path, monkeypatch, capsys):
    def error(*words) -> str:
        assert push.main([str(word) for word in words]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    for name in ("moe", "a/b/c", "my group/moe", f"{NAME}@v1"):
        assert f"{name}: not a name on the hub; give owner/name" in error(scored, name)
    (tmp_path / "empty").mkdir()
    assert "is neither a run, with best/config.json, nor a checkpoint" in error(tmp_path / "empty", NAME)
    assert f"--dry_run {tmp_path} exists already" in error(scored, NAME, "--dry_run", tmp_path)
    online.publish(NAME, tmp_path / "empty")
    assert "exists and is public; change that in its settings" in error(scored, NAME, "--private")
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    assert re.search(r"Connection refused; nothing was published", error(scored, NAME))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is set, which forbids uploads" in error(scored, NAME)


def test_a_run_of_the_published_code_is_not_pushed(published_run, tmp_path, capsys):
    assert push.main([str(published_run), NAME, "--dry_run", str(tmp_path / "shared")]) == 2
    assert "whose weights are pickled; save it with" in capsys.readouterr().err


def test_save_pretrained_with_push_to_hub_uploads_names_and_vectors_too(online, scored, tmp_path):
    model = RoutingBartForConditionalGeneration.from_pretrained(scored / "best")
    model.save_pretrained(tmp_path / "moe", push_to_hub=True, repo_id=NAME, commit_message="first")
    pushed = online.folders[online.revisions[NAME, "main"]]
    assert {"config.json", "model.safetensors", "id2task.json", "task_vecs.npy"} <= files_in(pushed)
    assert np.array_equal(np.load(pushed / "task_vecs.npy"), np.load(tmp_path / "moe/task_vecs.npy"))


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
    forget(monkeypatch)
    pulled.silence()
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
    assert cost["earlier_runs"][0]["folder"] == NAME
    assert cost["total_flops_with_start"] == cost["total_flops"] + start["total_flops"]
    assert same_weights("further/best", scored / "best")


def test_fine_tuning_merging_and_analysis_of_the_name_equal_those_of_the_run(
    pulled, scored, world, tmp_path, capsys
):
    gym = write_few_shot_gym(tmp_path / "few_shot", world.gym)
    flags = QUICK | dict(learning_rate_list=[0.03], train_dir=world.gym, moe_init=True)
    results, differences = [], []
    for place in (NAME, scored):
        out = tmp_path / Path(place).name
        assert finetune(gym, world.bart, out / "grid", **flags, init_dir=place) == 0
        results.append(pd.read_csv(out / "grid/results.csv"))
        words = ["--routes_from", str(place), "--model", str(world.bart)]
        assert merge.main([*words, "--output_dir", str(out / "two_stage")]) == 0
        words = [str(place), "--train_dir", str(world.gym), "--experts", "enc0.1"]
        assert ablate.main([*words, "--output_dir", str(out / "ablated")]) == 0
        differences.append(pd.read_csv(out / "ablated/tasks.csv"))
    pd.testing.assert_frame_equal(*results)
    pd.testing.assert_frame_equal(*differences)
    assert same_weights(*(tmp_path / Path(place).name / "two_stage/init" for place in (NAME, scored)))
    capsys.readouterr()
    assert report.main([NAME, "--output_file", "report.html"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert f"Routes of {NAME}" in page
    assert '"words"' in page  # of the ontology that came with it
    capsys.readouterr()
    for place in (NAME, str(scored)):
        assert show_scores.main([place]) == 0
    shown = capsys.readouterr().out
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]


@pytest.mark.parametrize("kind", ["mixture", "without texts", "random", "one"])
def test_what_the_card_recommends_works(kind, local_hub, scored, starts, world, tmp_path, monkeypatch):
    run = starts.get(kind, scored)
    if kind == "without texts":
        run = shutil.copytree(scored, tmp_path / "run")
        (run / "best/text_vectors.npz").unlink()
    assert push.main([str(run), NAME, "--dry_run", str(tmp_path / "shared")]) == 0
    local_hub.publish(NAME, tmp_path / "shared")
    monkeypatch.chdir(tmp_path)
    use = (tmp_path / "shared/README.md").read_text().partition("## Use")[2].partition("\n## ")[0]
    (code,) = re.findall("```python\n(.*?)```", use, re.DOTALL)
    exec(code, {"texts": ["cat", "mouse"], "examples": [("cat", "cats"), ("mouse", "mice")]})
    (commands,) = re.findall("```bash\n(.*?)```", use, re.DOTALL)
    assert (f"report {NAME}" in commands) == (kind in ("mixture", "without texts"))
    if kind in ("without texts", "random"):  # the commands are those of a mixture
        return
    gym = write_few_shot_gym(tmp_path / "gym", world.gym)
    short = {
        "--do_train": dict(max_input_length=24, max_output_length=6, num_beams=1),
        " train --do_train": dict(total_steps=1, train_batch_size=2),
        "finetune": dict(total_steps=2, samples="first", learning_rate_list=[0.03], bsz_list=[2]),
    }
    for i, line in enumerate(commands.strip().splitlines()):
        line = line.replace("GYM/TASK", f"{gym}/naming").replace("GYM", str(gym)).replace("OUT", f"out{i}")
        words = [word for kind, flags in short.items() if kind in line for word in typed(flags)]
        assert entry.main([*shlex.split(line)[1:], *words]) == 0, line


def test_an_analysis_of_a_name_needs_a_place_to_write(pulled, capsys):
    assert report.main([NAME]) == 2
    assert f"--output_file: must be given for a run of the hub, {NAME}" in capsys.readouterr().err
    for command in (inspect_routes, ablate):
        assert command.main([NAME]) == 2
        assert f"--output_dir: must be given for a run of the hub, {NAME}" in capsys.readouterr().err


def test_a_dense_run_is_shared_without_routes_and_starts_experts_and_plain_fine_tuning(
    local_hub, starts, world, tmp_path
):
    words = [str(starts["one"]), NAME, "--dry_run", str(tmp_path / "shared"), "--license", "mit"]
    assert push.main(words) == 0
    card = ModelCard.load(tmp_path / "shared/README.md")
    assert "There is no picture of routes: it has one expert, a plain BART." in card.text
    assert card.data.license == "mit"
    assert "routes.png" not in files_in(tmp_path / "shared")
    local_hub.publish(NAME, tmp_path / "shared")
    flags = NO_LEARNING | dict(vanilla_checkpoint=NAME, init_eps=0, do_predict=None)
    assert run(world.gym, world.bart, tmp_path / "upcycled", **flags) == 0
    dense = RoutingBartForConditionalGeneration.from_pretrained(starts["one"] / "best")
    made = RoutingBartForConditionalGeneration.from_pretrained(tmp_path / "upcycled/best")
    assert torch.equal(made.model.shared.weight, dense.model.shared.weight)
    gym = write_few_shot_gym(tmp_path / "few_shot", world.gym)
    flags = QUICK | dict(learning_rate_list=[0.03], checkpoint=NAME)
    assert finetune(gym, world.bart, tmp_path / "grid", **flags) == 0


def test_a_place_in_an_existing_folder_is_a_path_unless_it_has_a_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/moe").mkdir(parents=True)
    assert not any(map(hub.is_on_hub, ["models/moe", "models/mo", "moe", "models/moe/best", "/a/b", "a/b/"]))
    assert all(map(hub.is_on_hub, [NAME, f"{NAME}@v1", "models/mo@main", f"{NAME}@refs/pr/1"]))


def test_pickled_weights_of_a_run_are_not_downloaded(local_hub, written, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(written, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    local_hub.publish(NAME, folder)
    monkeypatch.chdir(tmp_path)
    assert report.main([NAME, "--output_file", "report.html"]) == 2
    assert f"error: {NAME}: has no model*.safetensors; pickled weights are not downloaded" in (
        capsys.readouterr().err
    )
    assert not any("pytorch_model.bin" in request for request in local_hub.requests)
