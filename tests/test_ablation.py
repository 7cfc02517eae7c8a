"""Ablation of experts: routes without them, scores with a planted useful expert, the command."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from conftest import without_pictures
from forks import in_two_processes, killed
from mistakes import Place, assert_problem, refused
from planted_routes import features_of_columns
from tiny_runs import ROWS, TRAIN_TASKS, contents, run
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.ablation import Ablation, category_drops, feature_table, routes_without, task_table
from routing_moe.analysis.saved_routes import best_step
from routing_moe.cli.ablate import main
from routing_moe.evaluation.scored_files import Decoding, load_task_files
from routing_moe.evaluation.scoring import predict

TASKS = list(ROWS)
FORMAT = TextFormat(max_input_length=24, max_output_length=6)
USEFUL = (2, 1)  # decoder layer 0, expert 1
USERS = ["colour", "plural"]


def test_a_soft_route_is_renormalised(make_model):
    model = make_model(router_mode="softmax")
    own, without = routes_without(model, ["a", "b"]), routes_without(model, ["a", "b"], ((1, 2),))
    expected = own.clone()
    expected[:, 1, 2] = 0
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(without, expected)
    assert torch.equal(without[:, [0, 2, 3]], own[:, [0, 2, 3]])


def test_a_one_hot_route_uses_the_next_best_expert(make_model):
    model = make_model(router_mode="gumbel_softmax_st")
    ranked = model.router_logits(model.task_ids(["a"]))[0].argsort(-1, descending=True)
    best, second = ranked[1, 0].item(), ranked[1, 1].item()
    assert routes_without(model, ["a"], ((1, best),))[0, 1].argmax() == second
    assert torch.equal(routes_without(model, ["a"], ((1, second),)), routes_without(model, ["a"]))
    third = routes_without(model, ["a"], ((1, best), (1, second)))[0, 1].argmax()
    assert third == ranked[1, 2].item()


def test_top_k_uses_the_best_remaining_experts(make_model):
    model = make_model(router_mode="top_k", router_top_k=2)
    best = model.router_logits(model.task_ids(["a"]))[0, 0].argmax().item()
    route_E = routes_without(model, ["a"], ((0, best),))[0, 0]
    assert route_E[best] == 0
    assert (route_E > 0).sum() == 2
    alone = routes_without(model, ["a"], [(0, e) for e in range(3) if e != best])[0, 0]
    assert alone[best] == 1


def test_routes_without_a_router_are_renormalised_or_become_uniform(make_model):
    model = make_model()
    model.use_routes("average")
    assert routes_without(model, ["a"], ((0, 1),))[0, 0].tolist() == [0.5, 0.0, 0.5]
    fixed_NLE = torch.zeros(4, 4, 3, dtype=torch.float64)
    fixed_NLE[..., 0] = 1
    model.use_routes("fixed", fixed_NLE)
    assert routes_without(model, ["a"], ((0, 0),))[0, 0].tolist() == [0.0, 0.5, 0.5]
    assert routes_without(model, ["a"], ((0, 1),))[0, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def tokenizer(originals):
    return AutoTokenizer.from_pretrained(originals.bart)


@pytest.fixture(scope="module")
def planted(originals, tokenizer):
    """A model whose experts are copies of each other, except for the useful one, which only USERS use."""
    torch.manual_seed(0)
    fields = dict(init_eps=0.0, task_names=TASKS, router_input_dim=8)
    model = RoutingBartForConditionalGeneration.from_bart(str(originals.bart), 3, **fields).eval()
    routes_NLE = torch.tensor([0.5, 0.0, 0.5]).expand(len(TASKS), 3, 3).clone()
    for task in USERS:
        routes_NLE[TASKS.index(task), USEFUL[0]] = torch.tensor([0.0, 1.0, 0.0])
    model.use_routes("fixed", routes_NLE)
    with torch.no_grad():
        for parameter in model.model.decoder.layers[0].experts[USEFUL[1]].parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return model


def ablation_of(model, tokenizer, files, folder=""):
    decoding = Decoding(num_beams=1, max_output_length=6)
    return Ablation(model, tokenizer, files, decoding, Accelerator(cpu=True), folder, {"part": "train"})


def files_of(model, gym, tokenizer):
    ids = {name: row for row, name in enumerate(model.config.task_names)}
    return load_task_files(Gym(gym), TASKS, "train", "first", tokenizer, FORMAT, ids)


def with_own_answers(model, tokenizer, files):
    """Returns the files with the model's own answers as correct answers, and exact match as the metric."""
    ablation = ablation_of(model, tokenizer, files)
    _, predictions, _ = predict(model, tokenizer, files, ablation.decoding, ablation.accelerator)
    found = []
    for file, (texts,) in zip(files, predictions, strict=True):
        pairs = zip(file.examples, texts, strict=True)
        answered = [replace(example, outputs=(text or "none",)) for example, text in pairs]
        found.append(replace(file, metric="EM", examples=answered))
    return found


@pytest.fixture(scope="module")
def ablation(planted, originals, tokenizer, tmp_path_factory):
    """Every expert ablated, one at a time."""
    files = with_own_answers(planted, tokenizer, files_of(planted, originals.gym, tokenizer))
    ablation = ablation_of(planted, tokenizer, files, tmp_path_factory.mktemp("planted"))
    ablation.run(ablation.all_experts())
    assert set(ablation.sets.finished(()).values()) == {1.0}
    return ablation


@pytest.fixture(scope="module")
def scores_ST(ablation):
    return ablation.table(ablation.all_experts())


def test_only_tasks_whose_route_changes_are_scored(ablation):
    assert sorted(ablation.sets.finished((USEFUL,))) == sorted(f"{task}_12_100" for task in USERS)
    assert ablation.sets.finished(((0, 1),)) == {}
    assert len(ablation.sets.finished(((0, 0),))) == 4


def test_tables_show_the_drop_of_the_useful_expert(ablation, scores_ST, originals):
    ontology = Ontology.load(originals.gym / "ontology.json")
    tasks = task_table(ablation, ablation.all_experts(), scores_ST, ontology)
    assert len(tasks) == 9 * 4
    hurt = tasks[tasks["drop"] != 0]
    assert (hurt["drop"] > 0.2).all()
    assert set(hurt["task"]) == set(USERS)
    assert set(zip(hurt["layer"], hurt["expert"], strict=True)) == {("dec 0", 1)}
    assert (hurt["before"] - hurt["after"] == hurt["drop"]).all()
    categories = category_drops(tasks, ontology).set_index(["layer", "expert", "category"]).sort_index()
    useful = categories.xs(("dec 0", 1))
    drops = tasks[(tasks["layer"] == "dec 0") & (tasks["expert"] == 1)].set_index("task")["drop"]
    assert useful.loc["words", "drop"] == pytest.approx(drops[["colour", "opposite", "plural"]].mean())
    assert useful.loc["all", "users"] == 2
    assert useful.loc["all", "others"] == 0
    assert categories.loc[("enc 0", 0, "all"), "others"] == pytest.approx(useful.loc["all", "drop"] / 8)
    colour = tasks[tasks["task"] == "colour"].set_index(["layer", "expert"]).sort_index()
    assert colour.loc[("dec 0", 1), "others"] == 0
    assert colour.loc[("enc 0", 0), "others"] == pytest.approx(colour.loc[("dec 0", 1), "drop"] / 8)


def test_the_experts_of_a_feature_are_used_and_missed_by_its_tasks(ablation, scores_ST):
    features, ontology = features_of_columns({"kind:a": [1, 0, 0, 1]}, TASKS), Ontology({})
    table = feature_table(ablation, {"kind:a": (USEFUL,)}, scores_ST, features, ontology).set_index("group")
    assert table.loc["with feature", "weight"] == 1
    assert table.loc["without feature", ["weight", "drop"]].tolist() == [0, 0]
    useful_T = scores_ST.loc["base"] - scores_ST.loc["dec0.1"]
    assert table.loc["with feature", "drop"] == pytest.approx(useful_T[USERS].mean())


# ---- the command: its outputs, continuation after a kill, errors


pytestmark = pytest.mark.usefixtures("empty_pictures")


@pytest.fixture(scope="module")
def gym(originals, tmp_path_factory):
    """A gym of six train tasks, each of three under two names. Half of them have odd:yes.

    All answers have the same first words, which a few steps learn.
    """
    gym = tmp_path_factory.mktemp("wide") / "gym"
    shutil.copytree(originals.gym, gym)
    for task in TRAIN_TASKS:
        (gym / f"{task}-b").mkdir()
        for file in (gym / task).iterdir():
            text = file.read_text().replace("\t", "\tit is ")
            file.write_text(text)
            (gym / f"{task}-b" / file.name.replace(task, f"{task}-b")).write_text(text)
    tasks = [f"{task}{ending}" for ending in ("", "-b") for task in TRAIN_TASKS]
    rows = [f"{task},{int('-b' in task)}\n" for task in tasks]
    (gym / "skills.csv").write_text("task,odd:yes\n" + "".join(rows))
    (gym / "metrics.json").write_text(json.dumps(dict.fromkeys(tasks, "Rouge-L")))
    (gym / "split.json").write_text(json.dumps({"train": tasks}))
    return gym


@pytest.fixture(scope="module")
def trained(gym, originals, tmp_path_factory):
    """A run of soft routes of three experts in two layers. Must not be changed."""
    folder = tmp_path_factory.mktemp("ablated") / "run"
    model = dict(num_experts=3, init_eps=0.3, router_mode="softmax", encoder_vanilla_layers="0")
    learning = dict(learning_rate=0.03, total_steps=6, eval_period=3, max_output_length=4, num_beams=1)
    with without_pictures():
        assert run(gym, originals.bart, folder, **model, **learning) == 0
    return folder


@pytest.fixture(scope="module")
def ablated(trained, tmp_path_factory):
    """The folder of an uninterrupted ablation of all experts. Must not be changed."""
    folder = tmp_path_factory.mktemp("ablated_at_once")
    AcceleratorState._reset_state(reset_partial_state=True)
    with without_pictures():
        assert main([str(trained), "--experts", "all", "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def place(gym, originals, trained, tmp_path):
    place = Place(tmp_path, gym, originals.bart)
    shutil.copytree(trained, place.out)
    return place


def ablate(place, *words):
    return main([str(place.out), *map(str, words)])


def tables_in(folder):
    files = contents(folder).items()
    return {name: content for name, content in files if not name.endswith((".png", ".pdf"))}


def test_ablation_of_every_expert_writes_all_files(trained, ablated):
    assert "| layer / expert |" in (ablated / "ablation.md").read_text()
    names = {path.name for path in ablated.iterdir()}
    expected = {"ablation.md", "categories.csv", "tasks.csv", "tasks.png", "tasks.pdf", "job.json"}
    assert names - {"sets", "lock"} == expected
    tasks = pd.read_csv(ablated / "tasks.csv")
    assert list(tasks["layer"].unique()) == ["enc 1", "dec 0"]
    assert len(tasks) == 6 * 6
    assert tasks["weight"].between(0, 1).all()
    assert tasks.groupby(["layer", "task"])["weight"].sum().to_numpy() == pytest.approx(np.ones(12), abs=1e-5)
    scores = pd.read_csv(trained / f"{best_step(trained, [3, 6])}-steps" / "dev_results.csv")
    own = tasks.groupby("task")["before"].first()
    expected = scores.set_index("task_prefix")["performance"].to_dict()
    assert own.to_dict() == pytest.approx(expected, abs=1e-6)
    assert own.max() > 0


def test_the_text_has_the_numbers_of_each_expert_also_of_a_part_of_them(place, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != place.out)  # of another user
    words = ["--experts", "enc1.2", "dec0.0", "dec0.2", "--output_dir", place.folder / "part"]
    assert ablate(place, *words) == 0
    text, tasks = (place.folder / "part/ablation.md").read_text(), place.folder / "part/tasks.csv"
    for (layer, expert), rows in pd.read_csv(tasks).groupby(["layer", "expert"]):
        worst = rows.loc[rows["drop"].idxmax()]
        shown = f"{worst['task']} {worst['drop']:.3f}" if worst["drop"] > 0 else "-"
        assert re.search(rf"\| {layer} / {expert} .*\| +{re.escape(shown)} \|", text)


def test_the_experts_of_features_are_ablated_together(place, capsys):
    words = ("--experts", "none", "--features", "odd:yes", "--top", 2)
    assert ablate(place, *words) == 0
    folder = place.out / "analysis" / "ablation"
    assert "The top 2 experts of a feature together" in capsys.readouterr().out
    assert (folder / "top_experts.csv").is_file()
    table = pd.read_csv(folder / "features.csv").set_index(["feature", "group"])
    assert table.loc[("odd:yes", "with feature"), "tasks"] == 3
    assert table.loc[("odd:yes", "without feature"), "tasks"] == 3
    top = pd.read_csv(folder / "top_experts.csv")
    assert (top["r"] > 0).all()
    of_odd = top[top["feature"] == "odd:yes"]
    places = zip(of_odd["layer"].str.replace(" ", ""), of_odd["expert"], strict=True)
    experts = table.loc[("odd:yes", "all"), "experts"]
    assert set(experts.split("+")) == {f"{layer}.{expert}" for layer, expert in places}
    files = (folder / f"sets/{name}.json" for name in ("base", experts))
    base, without = (json.loads(file.read_text())["scores"] for file in files)
    lost = [base[sample] - without.get(sample, base[sample]) for sample in base]
    assert table.loc[("odd:yes", "all"), "drop"] == pytest.approx(np.mean(lost), abs=1e-6)


def test_a_killed_job_is_continued_without_scoring_finished_sets_again(place, ablated, monkeypatch, capsys):
    folder = place.out / "analysis" / "ablation"
    killed(lambda: ablate(place), "after", "sets/enc1.0.json")
    assert {path.stem for path in (folder / "sets").glob("*.json")} == {"base", "enc1.0"}
    assert not (folder / "ablation.md").exists()
    scored, score = [], Ablation._score
    monkeypatch.setattr(Ablation, "_score", lambda job, *args: scored.append(args[0]) or score(job, *args))
    for expected in (6 - 1, 0):
        assert ablate(place) == 0
        assert (folder / "ablation.md").read_text() in capsys.readouterr().out
        assert len(scored) == expected
        assert tables_in(folder) == tables_in(ablated)
        scored.clear()


def test_without_testable_features_there_is_nothing_to_ablate(place, capsys):
    (place.folder / "few.csv").write_text("task,rare:yes\ncount,1\ncolour,0\n")
    split = json.loads((place.gym / "split.json").read_text())
    ontology = place.folder / "ontology.json"
    ontology.write_text(json.dumps({"one": {"kind": split["train"]}}))
    words = ("--features", "all", "--feature_file", place.folder / "few.csv", "--task_ontology", ontology)
    assert ablate(place, "--experts", "none", *words) == 3
    assert "--features all: no feature holds for at least three tasks" in capsys.readouterr().err


def test_two_processes_share_the_sets_and_write_the_files_of_one_process(place, ablated, tmp_path):
    codes, _ = in_two_processes(tmp_path, lambda: ablate(place))
    assert codes == [0, 0]
    assert tables_in(place.out / "analysis" / "ablation") == tables_in(ablated)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--features odd:yes --top 13", "--top is 13; it must be from 1 to 12"),
        ("--experts none", "--experts none: ... give --features"),
        ("--experts enc0.7", "--experts enc0.7: give all, none, or some of enc1.0, enc1.1, enc1.2"),
        ("--features skil:spell", "--features skil:spell: no such feature"),
        ("--features all --feature_file <here>/few.csv", "<here>/few.csv: No such file"),
        ("--features odd:yes --top 8", "--top 8: only ... correlate with odd:yes"),
        ("--checkpoint_name bist", "bist ... best, last"),
    ],
)
def test_mistakes_are_reported(place, capsys, words, message):
    words = [place.filled_in(word) for word in words.split()]
    output = refused(place, capsys, lambda: ablate(place, *words))
    assert_problem(output.err.splitlines(), *map(place.filled_in, message.split(" ... ")))


def test_a_folder_with_scores_of_other_settings_is_an_error(place, ablated, capsys):
    folder = place.out / "analysis" / "ablation"
    shutil.copytree(ablated, folder)
    output = refused(place, capsys, lambda: ablate(place, "--part", "test"))
    assert_problem(output.err.splitlines(), "--output_dir", 'holds results with part "dev", not "test"')
    path = folder / "sets" / "base.json"
    path.write_text("{}")
    output = refused(place, capsys, lambda: ablate(place))
    assert_problem(output.err.splitlines(), str(path), "is damaged; delete it")


def test_models_without_experts_to_ablate_are_reported(starts, originals, tmp_path, capsys):
    of_examples = "random routes differ among the examples of a task"
    for name, fragment in (("one", "one expert per layer"), ("random", of_examples)):
        place = Place(tmp_path / name, originals.gym, originals.bart)
        shutil.copytree(starts[name], place.out)
        assert ablate(place) == 3
        assert fragment in capsys.readouterr().err


def test_experts_of_one_hot_routes_and_all_samples(with_run):
    assert ablate(with_run, "--predict_samples", "all") == 0
    folder = with_run.out / "analysis" / "ablation"
    scores = json.loads((folder / "sets" / "base.json").read_text())["scores"]
    assert len(scores) == 3 * 2
    dev = pd.read_csv(with_run.out / "1-steps" / "dev_results.csv").set_index("sample")["performance"]
    assert {sample: scores[sample] for sample in dev.index} == pytest.approx(dev.to_dict())
    tasks = pd.read_csv(folder / "tasks.csv")
    assert list(tasks["layer"].unique()) == ["enc 0", "enc 1", "dec 0"]
    assert (tasks.groupby(["layer", "task"])["weight"].agg(["min", "max"]) == [0, 1]).all(axis=None)
    assert (tasks[tasks["weight"] == 0]["drop"] == 0).all()
