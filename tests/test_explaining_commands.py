"""The commands that inspect, correlate and report runs: files, their content, and errors."""

import numpy as np
import pandas as pd
import pytest
from mistakes import assert_problem, refused
from planted_routes import NAMES, SKILLS, one_hot, write_place, write_run
from tiny_runs import contents

from routing_moe.analysis.runs import read_runs
from routing_moe.analysis.saved_routes import expert_name, load_history, load_routes, run_name
from routing_moe.checkpoints.folder import PROGRESS_FILE
from routing_moe.cli import correlate_routes, inspect_routes, report
from routing_moe.io.files import npy_bytes
from routing_moe.results.statistics import holm

pytestmark = pytest.mark.usefixtures("empty_pictures", "without_chart_library")


@pytest.fixture
def place(tmp_path):
    return write_place(tmp_path)


# ---------------------------------------------------------------------------- routes on disk


def test_routes_are_those_of_the_best_step_unless_another_is_given(place):
    best, last = load_routes(place.folder / "one"), load_routes(place.folder / "one", "last")
    assert (best.step, last.step) == (20, 30)
    assert load_routes(place.folder / "one", "10").step == 10
    assert best.layers == ("enc 0", "dec 0", "dec 1")
    assert best.tasks == NAMES
    history = load_history(place.folder / "one")
    assert history.steps == (10, 20, 30)
    assert np.array_equal(history.values_SNLE[1], best.values_NLE)
    chosen = load_routes(place.folder / "one", kind="chosen")
    assert np.array_equal(chosen.values_NLE, one_hot(best.values_NLE.argmax(axis=2)))


def test_vanilla_layers_are_left_out(tmp_path):
    values_NLE = np.random.default_rng(0).dirichlet(np.ones(3), (6, 4))
    write_run(tmp_path / "run", {5: values_NLE}, encoder_layers=2, encoder_vanilla_layers=[0])
    routes = load_routes(tmp_path / "run")
    assert routes.layers == ("enc 1", "dec 0", "dec 1")
    assert routes.values_NLE == pytest.approx(values_NLE[:, 1:], abs=1e-6)


def test_a_checkpoint_gives_the_routes_that_the_run_wrote(finished):
    by_step, loaded = load_routes(finished), load_routes(finished / "best")
    loaded = loaded.of(by_step.tasks)
    assert loaded.values_NLE == pytest.approx(by_step.values_NLE, abs=1e-6)
    assert loaded.layers == by_step.layers
    assert (by_step.name, loaded.name) == ("finished", "finished/best")


def test_names_distinguish_runs(place, tmp_path):
    assert run_name("runs/trained/seed42") == "trained/seed42"
    assert run_name("runs/moe/stage1") == "moe/stage1"
    assert run_name("runs/moe") == "moe"
    for variant in ("a", "b"):
        write_place(tmp_path / variant, runs=("run",))
    runs = read_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert [run.name for run in runs] == ["a/run", "b/run"]


def test_runs_whose_file_names_would_be_equal_have_folders_of_their_own(tmp_path):
    history = {5: one_hot([[task % 3] * 3 for task in range(6)])}
    runs = [write_run(tmp_path / name, history) for name in ("moe/seed1", "moe_seed1")]
    assert inspect_routes.main([*map(str, runs), "--output_dir", str(tmp_path / "out")]) == 0
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"moe_seed1", "moe_seed1_2"}


def test_inspecting_one_run(place):
    place.write(place.gym / "skills.csv", "task,skill:own\nunheard,1\n")  # features are not read
    run = str(place.folder / "one")
    assert inspect_routes.main([run]) == 0
    folder = place.folder / "one" / "analysis"
    pictures = {f"{name}.{kind}" for name in ("routes", "similarity", "load") for kind in ("png", "pdf")}
    assert {path.name for path in folder.iterdir()} == pictures | {"layers.csv", "neighbours.csv"}
    routes = load_routes(run)
    layers = pd.read_csv(folder / "layers.csv")
    loads = layers[["load_0", "load_1", "load_2"]].to_numpy()
    assert loads == pytest.approx(routes.values_NLE.mean(axis=0), abs=1e-5)
    neighbours = pd.read_csv(folder / "neighbours.csv")
    own = neighbours[neighbours["task"] == "hot"]
    assert own["overlap"].is_monotonic_decreasing
    assert set(own["neighbour"]) == set(NAMES) - {"hot"}
    assert own.set_index("neighbour").loc["big", "same_category"] == 1


def test_correlating_one_run(place, capsys):
    assert correlate_routes.main([str(place.folder / "one")]) == 0
    folder = place.folder / "one" / "analysis"
    names = {"correlations.csv", "top_experts.csv", "recovery.csv", "features.md"}
    assert {path.name for path in folder.iterdir()} == names | {"correlations.png", "correlations.pdf"}
    table = pd.read_csv(folder / "correlations.csv")
    assert set(table["feature"]) == {"skill:spell", "skill:count"}
    routes = load_routes(place.folder / "one")
    row = table.query("layer == 'dec 1' and expert == 2 and feature == 'skill:spell'").iloc[0]
    expected = np.corrcoef(routes.values_NLE[:, 2, 2], [1, 1, 1, 0, 0, 0])[0, 1]
    assert row.r == pytest.approx(expected, abs=1e-5)
    recovery = pd.read_csv(folder / "recovery.csv").set_index("kind")
    assert list(recovery.index) == ["category", "subcategory", "skill", "size"]
    assert recovery.loc["size", "tasks"] == 5
    p_holm = holm(recovery["mantel_p"])
    assert recovery["mantel_p_holm"].to_numpy() == pytest.approx(p_holm, abs=1e-5, nan_ok=True)
    text = (folder / "features.md").read_text()
    assert text in capsys.readouterr().out
    top = pd.read_csv(folder / "top_experts.csv").query("feature == 'skill:spell'").iloc[0]
    assert f"{expert_name(top.layer, top.expert)} {top.r:.2f}" in text


def test_correlating_several_runs_shows_each_and_is_reproducible(place):
    runs = [str(place.folder / name) for name in ("one", "two")]
    words = [*runs, "--output_dir", str(place.out)]
    assert correlate_routes.main(words) == 0
    before = contents(place.out)
    table = pd.read_csv(place.out / "recovery.csv")
    assert list(table["run"].unique()) == ["one", "two"]
    amis = table[table["kind"] == "category"]["ami"]
    text = (place.out / "features.md").read_text()
    shown = [row.split("|")[2:6:3] for row in text.splitlines() if row.startswith("| category ")]
    assert [(run.strip(), float(ami)) for run, ami in shown] == [
        ("one", pytest.approx(amis.iloc[0], abs=1e-3)),
        ("two", pytest.approx(amis.iloc[1], abs=1e-3)),
    ]
    assert correlate_routes.main(words) == 0
    assert contents(place.out) == before


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda place: (place.gym / "ontology.json").unlink(), "no task has a category"),
        (
            lambda place: place.write(place.gym / "skills.csv", SKILLS.replace("hot,", "hat,")),
            "one: the file of features has none of hot",
        ),
        (
            lambda place: np.save(place.folder / "one/20-steps/route.npy", np.full((6, 3, 3), 1 / 3)),
            "one: all tasks have the same route",
        ),
    ],
)
def test_what_limits_the_numbers_is_noted(place, capsys, change, note):
    change(place)
    assert correlate_routes.main([str(place.folder / "one")]) == 0
    assert note in capsys.readouterr().out


# ---------------------------------------------------------------------------- mistakes

ONE, TWO = "<here>/one", "<here>/two"


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (inspect_routes, f"{ONE} --step 15", "--step 15: ... best, last, 10, 20, 30"),
        (inspect_routes, f"{ONE} --step bset", "--step bset: ... did you mean 'best'"),
        (inspect_routes, "<here>/nowhere", "<here>/nowhere: no such folder"),
        (inspect_routes, f"{ONE} {ONE} --output_dir <out>", "is given twice"),
        (inspect_routes, "<gym>", "<gym> ... neither a run"),
        (inspect_routes, f"{ONE} --task_ontology <here>/no.json", "<here>/no.json ... no such file"),
        (correlate_routes, f"{ONE} --feature_file <here>/no.csv", "<here>/no.csv: No such file"),
        (report, f"{ONE} {TWO}", "--output_file: must be given for 2 runs"),
        (report, f"{ONE} --output_file <here>/one", "--output_file <here>/one is a folder"),
        (report, f"{ONE} --output_file {ONE}/run.json", "one/run.json: the page is HTML"),
    ],
)
def test_mistakes_are_reported(place, capsys, command, words, message):
    words = [place.filled_in(word) for word in words.split()]
    output = refused(place, capsys, lambda: command.main(words))
    assert_problem(output.err.splitlines(), *map(place.filled_in, message.split(" ... ")))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("20-steps/route.npy", npy_bytes(np.ones((6, 3, 3))), "do not sum to 1"),
        ("20-steps/route.npy", None, "not found"),
        ("20-steps/route_tasks.txt", b"\xff", "list"),
        ("best/config.json", None, "holds no checkpoint"),
        ("curves.csv", b"step,grad_norm\n1,big\n", "column grad_norm holds"),
        ("best/eval-test-performance.csv", b"a,b\n1,2\n", "was not written by --do_predict"),
    ],
)
def test_damaged_runs_are_reported(place, capsys, file, content, message):
    run = place.folder / "one"
    (run / file).unlink(missing_ok=True)
    if content is not None:
        (run / file).write_bytes(content)
    output = refused(place, capsys, lambda: report.main([str(run)]))
    assert_problem(output.err.splitlines(), str(run), message)


def test_routes_of_another_depth_than_the_model_are_reported(place, capsys):
    place.change("one/best/config.json", decoder_layers=1)
    output = refused(place, capsys, lambda: report.main([str(place.folder / "one")]))
    assert_problem(output.err.splitlines(), "has 1 + 1 layers", "3")


def test_a_run_without_a_best_step_is_read_at_its_last_one(place):
    (place.folder / "one" / "best" / PROGRESS_FILE).write_text("{}")
    assert load_routes(place.folder / "one").step == 30
