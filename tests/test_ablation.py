"""Switching experts off: routes, scores of a planted expert, the command: killed, continued, misused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from mistakes import Place, assert_told, refused
from tiny_runs import ROOT, ROWS, contents, run
from transformers import AutoTokenizer

from dataloader.encoding import TextFormat, encode_options
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from routing_moe import RoutingBartForConditionalGeneration
from routing_moe.analysis.ablation import Bench, mask_of, routes_without
from routing_moe.analysis.ablation_job import AblationJob
from routing_moe.analysis.ablation_tables import category_drops, drops_of, task_table
from routing_moe.analysis.route_data import best_step
from routing_moe.cli.ablate import main
from routing_moe.evaluation import Decoding, evenly_spread, load_task_files, predict

TASKS = list(ROWS)
FORMAT = TextFormat(max_input_length=24, max_output_length=6)
USEFUL = (2, 1)  # decoder layer 0, expert 1
USERS = ["colour", "plural"]


# ---------------------------------------------------------------------------- routes


def off(*experts, layers=4, num_experts=3):
    return mask_of(experts, layers, num_experts)


def test_a_soft_route_is_renormalised(make_model):
    model = make_model(router_mode="softmax")
    own, without = routes_without(model, ["a", "b"], None), routes_without(model, ["a", "b"], off((1, 2)))
    expected = own.clone()
    expected[:, 1, 2] = 0
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(without, expected)
    assert torch.equal(without[:, [0, 2, 3]], own[:, [0, 2, 3]])


def test_a_one_hot_route_goes_to_the_next_best_expert(make_model):
    model = make_model(router_mode="gumbel_softmax_st")
    ranked = model.router_logits(model.task_ids(["a"]))[0].argsort(-1, descending=True)
    best, second = ranked[1, 0].item(), ranked[1, 1].item()
    assert routes_without(model, ["a"], off((1, best)))[0, 1].argmax() == second
    assert torch.equal(routes_without(model, ["a"], off((1, second))), routes_without(model, ["a"], None))
    third = routes_without(model, ["a"], off((1, best), (1, second)))[0, 1].argmax()
    assert third == ranked[1, 2].item()


def test_top_k_takes_the_best_that_are_left(make_model):
    model = make_model(router_mode="top_k", router_top_k=2)
    best = model.router_logits(model.task_ids(["a"]))[0, 0].argmax().item()
    route_E = routes_without(model, ["a"], off((0, best)))[0, 0]
    assert route_E[best] == 0
    assert (route_E > 0).sum() == 2
    alone = routes_without(model, ["a"], off(*((0, e) for e in range(3) if e != best)))[0, 0]
    assert alone[best] == 1


def test_routes_without_a_router_are_renormalised_or_become_uniform(make_model):
    model = make_model()
    model.use_routes("average")
    assert routes_without(model, ["a"], off((0, 1)))[0, 0].tolist() == [0.5, 0.0, 0.5]
    fixed_NLE = torch.zeros(4, 4, 3, dtype=torch.float64)
    fixed_NLE[..., 0] = 1
    model.use_routes("fixed", fixed_NLE)
    assert routes_without(model, ["a"], off((0, 0)))[0, 0].tolist() == [0.0, 0.5, 0.5]
    assert routes_without(model, ["a"], off((0, 1)))[0, 0].tolist() == [1.0, 0.0, 0.0]


def test_a_layer_must_keep_an_expert():
    with pytest.raises(ValueError, match=r"row 1 .* no expert left"):
        off((1, 0), (1, 1), (1, 2))


# ---------------------------------------------------------------------------- a planted expert


@pytest.fixture(scope="module")
def tokenizer(originals):
    return AutoTokenizer.from_pretrained(originals.bart)


@pytest.fixture(scope="module")
def planted(originals, tokenizer):
    """Experts that are copies of one another, but for the useful one, which only the users' routes take; the
    right answers are those that the whole model gives."""
    torch.manual_seed(0)
    model = RoutingBartForConditionalGeneration.from_bart(
        str(originals.bart), 3, init_eps=0.0, task_names=TASKS, router_input_dim=8
    ).eval()
    routes_NLE = torch.tensor([0.5, 0.0, 0.5]).expand(len(TASKS), 3, 3).clone()
    for task in USERS:
        routes_NLE[TASKS.index(task), USEFUL[0]] = torch.tensor([0.0, 1.0, 0.0])
    model.use_routes("fixed", routes_NLE)
    with torch.no_grad():
        for parameter in model.model.decoder.layers[0].experts[USEFUL[1]].parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return model


def bench_of(model, tokenizer, files, **decoding):
    AcceleratorState._reset_state(reset_partial_state=True)
    chosen = Decoding(**(dict(num_beams=1, max_output_length=6) | decoding))
    return Bench(model, tokenizer, files, FORMAT, chosen, Accelerator(cpu=True))


def files_of(model, gym, tokenizer, scoring="generate", part="train"):
    ids = {name: row for row, name in enumerate(model.config.task_names)}
    return load_task_files(Gym(gym), TASKS, part, "first", tokenizer, FORMAT, ids, scoring=scoring)


def with_own_answers(model, tokenizer, files):
    """The files with what the model answers as the right answers, and exact match as the metric."""
    bench = bench_of(model, tokenizer, files)
    _, predictions = predict(model, tokenizer, files, bench.decoding, bench.accelerator)
    return [
        replace(
            file,
            metric="EM",
            examples=[
                replace(e, outputs=(text or "none",)) for e, text in zip(file.examples, texts, strict=True)
            ],
        )
        for file, (texts,) in zip(files, predictions, strict=True)
    ]


def with_options(file, tokenizer):
    """Two of the three examples have options."""
    options = [("blue", "a green one"), (), ("white", "black", "red")]
    encoded = encode_options(options, tokenizer, FORMAT)
    return replace(file, option_source="field", options=options, encoded_options=encoded)


@pytest.fixture(scope="module")
def job(planted, originals, tokenizer, tmp_path_factory):
    """Every expert switched off."""
    files = with_own_answers(planted, tokenizer, files_of(planted, originals.gym, tokenizer))
    job = AblationJob(
        bench_of(planted, tokenizer, files), tmp_path_factory.mktemp("planted"), {"part": "train"}
    )
    assert set(job.start().scores.values()) == {1.0}
    job.run(job.all_experts())
    return job


def test_switching_off_the_useful_expert_hurts_exactly_its_tasks(job):
    for ((row, expert),) in job.all_experts():
        drops = drops_of(job, ((row, expert),))
        if (row, expert) == USEFUL:
            assert all(drops[task] > 0.2 for task in USERS)
            assert {task for task in TASKS if drops[task]} == set(USERS)
        else:
            assert set(drops.values()) == {0.0}, (row, expert)


def test_only_tasks_whose_route_changes_are_scored(job):
    assert sorted(job.finished((USEFUL,)).scores) == sorted(f"{task}_12_100" for task in USERS)
    assert job.finished(((0, 1),)).scores == {}
    assert job.finished(((0, 0),)).examples == 4 * 12


def test_tables_show_it(job, originals):
    ontology = Ontology.load(originals.gym / "ontology.json")
    tasks = task_table(job, job.all_experts(), ontology)
    assert len(tasks) == 9 * 4
    hurt = tasks[tasks["drop"] > 0]
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


@pytest.mark.parametrize("scoring", ["generate", "rank"])
@pytest.mark.parametrize(
    "fields",
    [
        dict(router_mode="gumbel_softmax_st"),
        dict(router_mode="softmax"),
        dict(router_mode="softmax", expert_mixing="parameters"),
    ],
)
def test_files_scored_together_are_scored_as_each_by_itself(originals, tokenizer, fields, scoring):
    torch.manual_seed(1)
    model = RoutingBartForConditionalGeneration.from_bart(
        str(originals.bart), 3, init_eps=0.3, task_names=TASKS, router_input_dim=8, **fields
    ).double()
    files = files_of(model, originals.gym, tokenizer, part="test")
    if scoring == "rank":
        files[0] = with_options(files[0], tokenizer)
    bench = bench_of(model, tokenizer, files, scoring=scoring, batch_size=5)
    expected, predictions = predict(model, tokenizer, files, bench.decoding, bench.accelerator)
    assert any(text for (texts,) in predictions for text in texts)
    assert bench.scores(bench.routes()) == dict(zip(expected["sample"], expected["performance"], strict=True))
    some = bench.scores(bench.routes(), ["count"])
    assert list(some) == ["count_12_100"]


# ---------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def gym(originals, tmp_path_factory):
    """Six train tasks: each of the three again under another name. Half of them have odd:yes."""
    gym = tmp_path_factory.mktemp("wide") / "gym"
    shutil.copytree(originals.gym, gym)
    metrics, split = (json.loads((gym / f"{name}.json").read_text()) for name in ("metrics", "split"))
    for task in split["train"]:
        (gym / f"{task}-b").mkdir()
        for file in (gym / task).iterdir():
            shutil.copy(file, gym / f"{task}-b" / file.name.replace(task, f"{task}-b"))
        metrics[f"{task}-b"] = metrics[task]
    split["train"] += [f"{task}-b" for task in split["train"]]
    rows = [f"{task},{int('-b' in task)},{len(task)}\n" for task in split["train"]]
    (gym / "skills.csv").write_text("task,odd:yes,size\n" + "".join(rows))
    for name, content in (("metrics", metrics), ("split", split)):
        (gym / f"{name}.json").write_text(json.dumps(content))
    return gym


@pytest.fixture(scope="module")
def trained(gym, originals, tmp_path_factory):
    """A run of two steps with soft routes of three experts; not to be changed."""
    folder = tmp_path_factory.mktemp("ablated") / "run"
    changed = dict(num_experts=3, init_eps=0.3, total_steps=2, eval_period=1, router_mode="softmax")
    assert run(gym, originals.bart, folder, **changed) == 0
    return folder


@pytest.fixture
def place(gym, originals, trained, tmp_path):
    place = Place(tmp_path, gym, originals.bart)
    shutil.copytree(trained, place.out)
    return place


def ablate(place, *words):
    AcceleratorState._reset_state(reset_partial_state=True)
    return main([str(place.out), *map(str, words)])


@pytest.fixture
def no_pictures(monkeypatch):
    for name in ("plot_category_drops", "plot_feature_drops", "plot_task_drops"):
        monkeypatch.setattr(f"routing_moe.analysis.ablation_results.{name}", lambda *args, **kwargs: None)


def without_seconds(folder):
    """The files, pictures and lock aside, without how long each set took."""
    files = {}
    for name, content in contents(folder).items():
        if name.startswith("sets/"):
            files[name] = {k: v for k, v in json.loads(content).items() if k != "seconds"}
        elif not name.endswith((".png", ".pdf", "lock")):
            files[name] = content
    return files


def test_every_expert_and_the_files_that_come_of_it(place, capsys):
    assert ablate(place, "--experts", "all") == 0
    folder = place.out / "analysis" / "ablation"
    told = capsys.readouterr()
    assert "9 sets of experts to switch off, 0 finished; left: 162 answers" in told.err
    assert "| layer / expert |" in told.out
    names = {path.name for path in folder.iterdir()}
    expected = {"categories.csv", "categories.png", "categories.pdf", "tasks.csv", "tasks.png", "tasks.pdf"}
    assert names - {"sets", "lock"} == expected | {"ablation.md", "job.json"}
    tasks = pd.read_csv(folder / "tasks.csv")
    assert len(tasks) == 9 * 6
    assert tasks["weight"].between(0, 1).all()
    assert tasks.groupby(["layer", "task"])["weight"].sum().to_numpy() == pytest.approx(np.ones(18), abs=1e-5)
    scores = pd.read_csv(place.out / f"{best_step(place.out, [1, 2])}-steps" / "dev_results.csv")
    own = tasks.groupby("task")["before"].first()
    assert own.to_dict() == pytest.approx(scores.set_index("task_prefix")["performance"].to_dict())


def test_features_beside_random_experts(place, capsys):
    words = ("--experts", "none", "--features", "odd:yes", "size", "--top", 2, "--random_draws", 4)
    assert ablate(place, *words) == 0
    folder = place.out / "analysis" / "ablation"
    assert "The top 2 experts of a feature together" in capsys.readouterr().out
    assert {"features.png", "features.pdf", "top_experts.csv"} <= {path.name for path in folder.iterdir()}
    table = pd.read_csv(folder / "features.csv").set_index(["feature", "group"])
    assert table.loc[("odd:yes", "with feature"), "tasks"] == 3
    assert table.loc[("odd:yes", "without feature"), "tasks"] == 3
    assert ("size", "with feature") not in table.index  # a number
    assert (table["draws"] == 4).all()
    top = pd.read_csv(folder / "top_experts.csv")
    assert (top["r"] > 0).all()
    of_odd = top[top["feature"] == "odd:yes"]
    places = zip(of_odd["layer"].str.replace(" ", ""), of_odd["expert"], strict=True)
    experts = table.loc[("odd:yes", "all"), "experts"]
    assert set(experts.split("+")) == {f"{layer}.{expert}" for layer, expert in places}
    base, without = (
        json.loads((folder / "sets" / f"{name}.json").read_text())["scores"] for name in ("base", experts)
    )
    lost = [base[sample] - without.get(sample, base[sample]) for sample in base]
    assert table.loc[("odd:yes", "all"), "drop"] == pytest.approx(np.mean(lost), abs=1e-6)


@pytest.mark.usefixtures("no_pictures")
def test_sets_of_experts_by_name(place):
    assert ablate(place, "--experts", "enc0.1+dec0.0", "enc1.2") == 0
    folder = place.out / "analysis" / "ablation"
    sets = pd.read_csv(folder / "sets.csv")
    assert list(sets["experts"].unique()) == ["enc0.1+dec0.0"]
    assert len(sets) == 6
    assert set(pd.read_csv(folder / "tasks.csv")["layer"]) == {"enc 1"}


@pytest.mark.usefixtures("no_pictures")
def test_a_dry_run_says_how_long_it_would_take_and_scores_nothing_else(place, capsys):
    assert ablate(place, "--dry_run") == 0
    assert "about" in capsys.readouterr().err
    folder = place.out / "analysis" / "ablation"
    assert [path.name for path in (folder / "sets").iterdir()] == ["base.json"]
    assert not (folder / "tasks.csv").exists()


@pytest.mark.usefixtures("no_pictures")
def test_what_is_finished_is_not_scored_again_and_the_end_is_the_same(place, trained, tmp_path, monkeypatch):
    other = Place(tmp_path / "other", place.gym, place.bart)
    shutil.copytree(trained, other.out)
    assert ablate(other) == 0
    folder = place.out / "analysis" / "ablation"
    assert ablate(place, "--experts", "enc0.1", "dec0.2") == 0
    scored = []
    original = AblationJob._score
    monkeypatch.setattr(
        AblationJob, "_score", lambda job, *args: scored.append(args[0]) or original(job, *args)
    )
    assert ablate(place) == 0
    assert len(scored) == 9 - 2
    kept = without_seconds(folder)
    assert kept == without_seconds(other.out / "analysis" / "ablation")
    scored.clear()
    assert ablate(place) == 0
    assert scored == []
    assert without_seconds(folder) == kept


def test_a_killed_job_goes_on(place, trained, tmp_path):
    folder = place.out / "analysis" / "ablation"
    command = [sys.executable, "-m", "routing_moe.cli.ablate", str(place.out), "--max_examples", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "sets" / "enc0.0.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "sets" / "enc0.0.json").exists()
    assert ablate(place, "--max_examples", 2) == 0
    other = Place(tmp_path / "other", place.gym, place.bart)
    shutil.copytree(trained, other.out)
    assert ablate(other, "--max_examples", 2) == 0
    assert without_seconds(folder) == without_seconds(other.out / "analysis" / "ablation")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--experts", "enc0.7"], ["--experts enc0.7", "no expert 7 of enc 0", "0 to 2"]),
        (["--experts", "enc9.0"], ["--experts enc9.0", "of enc 0, enc 1, dec 0"]),
        (["--experts", "0.1"], ["--experts 0.1", "write enc0.1"]),
        (["--experts", "enc0.0+enc0.1+enc0.2"], ["a layer would have no expert left"]),
        (["--experts", "all", "enc0.1"], ["--experts all enc0.1", "stand alone"]),
        (["--experts", "none"], ["--experts none", "--features"]),
        (["--features", "skil:spell"], ["--features skil:spell", "no such feature"]),
        (["--features", "all", "--feature_file", "<here>/few.csv"], ["--feature_file <here>/few.csv"]),
        (["--top", "0"], ["--top 0", "at least 1"]),
        (["--max_examples", "0"], ["--max_examples 0", "at least 1"]),
        (["--checkpoint_name", "bist"], ["bist", "best, last"]),
        (["--feature_file", "<here>/none.csv"], ["--feature_file <here>/none.csv", "no such file"]),
        (["--output_dir", "<out>/run.json"], ["--output_dir <out>/run.json", "is a file"]),
        (["--num_beams", "0"], ["--num_beams", "at least 1"]),
        (["--train_dir", "<here>/nowhere"], ["--train_dir <here>/nowhere", "no such folder"]),
        (["--expert", "all"], ["unrecognized arguments: --expert", "did you mean '--experts'"]),
    ],
)
def test_mistakes_are_told(place, capsys, words, fragments):
    words = [place.filled_in(word) for word in words]
    told = refused(place, capsys, lambda: ablate(place, *words))
    assert_told(told.err.splitlines(), *map(place.filled_in, fragments))


def test_what_is_no_run_is_told(place, capsys):
    for folder, fragment in ((place.folder, "is no run folder"), (place.folder / "none", "is no run folder")):
        told = refused(place, capsys, lambda folder=folder: main([str(folder)]))
        assert_told(told.err.splitlines(), str(folder), fragment)


@pytest.mark.usefixtures("no_pictures")
def test_scores_of_something_else_are_not_mixed(place, capsys):
    assert ablate(place, "--experts", "enc0.1") == 0
    told = refused(place, capsys, lambda: ablate(place, "--part", "test"))
    assert_told(told.err.splitlines(), "--output_dir", 'holds scores with part "dev", not "test"')
    told = refused(place, capsys, lambda: ablate(place, "--num_beams", 1))
    assert_told(told.err.splitlines(), "--output_dir", "holds scores with decoding")
    path = place.out / "analysis" / "ablation" / "sets" / "base.json"
    path.write_text("{}")
    told = refused(place, capsys, lambda: ablate(place))
    assert_told(told.err.splitlines(), str(path), "is damaged; delete it")


@pytest.mark.usefixtures("no_pictures")
def test_models_without_experts_to_switch_off_are_told(starts, originals, tmp_path, capsys):
    for name, fragment in (("one", "one expert a layer"), ("random", "drawn for each example")):
        place = Place(tmp_path / name, originals.gym, originals.bart)
        shutil.copytree(starts[name], place.out)
        AcceleratorState._reset_state(reset_partial_state=True)
        assert ablate(place) == 2
        assert fragment in capsys.readouterr().err


def test_some_examples_of_a_file_are_spread_over_it():
    assert evenly_spread(list("aabbccdd"), 4) == ["a", "b", "c", "d"]
    assert evenly_spread(list("abc"), 3) == ["a", "b", "c"]
    assert evenly_spread(list("abc"), None) == ["a", "b", "c"]
