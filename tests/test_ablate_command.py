"""The command that ablates experts: its outputs, continuation after a kill, errors."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState
from conftest import without_pictures
from forks import in_two_processes, killed
from mistakes import Place, assert_problem, refused
from tiny_runs import TRAIN_TASKS, contents, run

from routing_moe.analysis.ablation import Ablation
from routing_moe.analysis.saved_routes import best_step
from routing_moe.cli.ablate import main

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
    expected = {"categories.csv", "categories.png", "categories.pdf", "tasks.csv", "tasks.png", "tasks.pdf"}
    assert names - {"sets", "lock"} == expected | {"ablation.md", "job.json"}
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
    assert (
        ablate(place, "--experts", "enc1.2", "dec0.0", "dec0.2", "--output_dir", place.folder / "part") == 0
    )
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
    assert {"features.png", "features.pdf", "top_experts.csv"} <= {path.name for path in folder.iterdir()}
    table = pd.read_csv(folder / "features.csv").set_index(["feature", "group"])
    assert table.loc[("odd:yes", "with feature"), "tasks"] == 3
    assert table.loc[("odd:yes", "without feature"), "tasks"] == 3
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
        ("--features all --feature_file <here>/few.csv", "<here>/few.csv: no such file"),
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
