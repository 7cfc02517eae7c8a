"""The data of the report page equal the runs' files; notes report where these do not match."""

import hashlib
import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from planted_routes import write_place

from dataloader.ontology import Ontology
from routing_moe.analysis.correlation import correlate
from routing_moe.analysis.features import features_of
from routing_moe.analysis.runs import ExplainedRun, read_runs
from routing_moe.analysis.saved_routes import Routes, load_routes
from routing_moe.cli import inspect_routes
from routing_moe.config.explain import ReportSettings
from routing_moe.model.given_routes import layer_names
from routing_moe.report import data as report_data_module
from routing_moe.report.data import UNIT, report_data
from routing_moe.report.page import render
from routing_moe.report.page.tables import mean_scores, sections


@pytest.fixture
def place(tmp_path):
    return write_place(tmp_path)


def data_of(*runs, **flags) -> dict:
    return report_data(read_runs(runs, **flags), ReportSettings(runs=[], permutations=20))


def test_the_data_of_a_trained_run_are_those_of_its_files(finished):
    data = data_of(finished)
    (run,) = data["runs"]
    routes = load_routes(finished)
    assert {row["task"] for row in run["routes"]} == set(routes.tasks)
    (row,) = (row for row in run["routes"] if row["task"] == "count")
    expected = UNIT * routes.values_NLE[routes.tasks.index("count")].ravel()
    assert row["weights"] == pytest.approx(expected, abs=0.51)
    written = pd.read_csv(finished / "best" / "eval-test-performance.csv").set_index("task_prefix")
    scores = data["scores"]
    of_test = scores[scores["files"] == "test, train tasks"].set_index("task")
    for task, own_row in written.iterrows():
        assert of_test.loc[task, "score"] == own_row["performance"]
        assert of_test.loc[task, ["sample", "metric", "n"]].tolist() == [*own_row[["sample", "metric", "n"]]]
    curves = {curve["curve"]: curve for curve in run["curves"]}
    losses = pd.read_csv(finished / "losses.csv")
    assert curves["dev loss"]["steps"] == losses["steps"].tolist()
    assert curves["dev loss"]["values"] == pytest.approx(losses["dev_loss"].tolist(), rel=1e-4)
    assert run["settings"]["num_experts"] == 2
    assert data["categories"][0]["name"] == "words"
    assert run["ablation"] is None


def test_data_of_two_runs_one_with_an_ablation(place):
    folder = place.folder / "one" / "analysis" / "ablation"
    folder.mkdir(parents=True)
    rows = [
        ("enc 0", expert, task, "words", 0.3, 0.8, 0.8 - drop, drop)
        for expert, drop in ((0, 0.5), (1, 0.0))
        for task in ("hot", "big")
    ]
    columns = ["layer", "expert", "task", "category", "weight", "before", "after", "drop"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "tasks.csv", index=False)
    job = {"part": "dev", "predict_split": "train", "max_examples": 8, "checkpoint_name": "last"}
    (folder / "job.json").write_text(json.dumps(job))
    data = data_of(place.folder / "one", place.folder / "two")
    ablation = data["runs"][0]["ablation"]
    hot = [task["task"] for task in data["tasks"]].index("hot")
    assert ablation["tasks"][0] == hot
    assert ablation["drops"][:3] == [[0.5, 0.5], [0.0, 0.0], [None, None]]
    assert len(ablation["drops"]) == 9
    assert "Scores of checkpoint last before minus after ablation" in ablation["note"]
    assert "8 examples of each" in ablation["note"]
    assert data["runs"][1]["ablation"] is None
    assert data["tasks"][hot]["features"] == "skill:spell"


def test_clusters_are_a_table_of_the_runs_that_have_them(place):
    row = {"source": "clusters:3", "part": "all", "clusters": 3, "sizes": "1 2 3", "silhouette": 0.125}
    pd.DataFrame([row]).to_csv(place.folder / "one/clusters.csv", index=False)
    data = data_of(place.folder / "one")
    text = sections(data, [])["Clusters"]
    assert all(f"<td>{value}</td>" in text for value in row.values())
    data["runs"][0]["clusters"] = pd.DataFrame()
    assert "Clusters" not in sections(data, [])


def test_the_strongest_correlations_of_each_feature_are_shown_with_either_sign(place, monkeypatch):
    runs = read_runs([place.folder / "one"])
    table = correlate(runs[0].routes, runs[0].features, 20)
    monkeypatch.setattr(report_data_module, "SIGNIFICANT", 1.1)
    monkeypatch.setattr(report_data_module, "MOST_CORRELATIONS", 2)
    shown = data_of(place.folder / "one")["runs"][0]["correlations"]
    ranked = table.assign(size=table["r"].abs()).sort_values("size", ascending=False).groupby("feature")
    sizes = {feature: own["size"].head(3).round(3).tolist() for feature, own in ranked}
    assert any(row["r"] < 0 for row in shown["rows"])
    for feature, largest in sizes.items():
        strongest = [abs(row["r"]) for row in shown["rows"] if row["feature"] == feature]
        assert sorted(strongest, reverse=True)[:3] == pytest.approx(largest, abs=1e-3)
    assert len(shown["rows"]) == 3 * len(sizes) + 2
    assert "Shown: these (2 of them), and for each feature the 3 largest |r|" in shown["note"]
    needed = math.ceil(len(table) / 0.05)
    assert f"With 20 permutations a single true correlation among {len(table)} tests cannot" in shown["note"]
    assert f"that takes --permutations {needed}." in shown["note"]
    assert "For these tasks 1 of the 2 features repeat or negate another." in shown["note"]


def test_an_ablation_of_other_weights_is_left_out_with_a_note(place):
    folder = place.folder / "one" / "analysis" / "ablation"
    folder.mkdir(parents=True)
    rows = [("enc 0", 1, task, drop) for task, drop in (("hot", 0.1), ("big", 0.3), ("not of the page", 0.5))]
    pd.DataFrame(rows, columns=["layer", "expert", "task", "drop"]).to_csv(folder / "tasks.csv")
    weights = place.folder / "one" / "best" / "model.safetensors"
    weights.write_bytes(b"weights")
    job = {"part": "dev", "predict_split": "train", "checkpoint_name": "best"}
    job |= {"checkpoint": {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}}
    (folder / "job.json").write_text(json.dumps(job))
    data = data_of(place.folder / "one")
    ablation = data["runs"][0]["ablation"]
    assert [data["tasks"][number]["task"] for number in ablation["tasks"]] == ["hot", "big"]
    assert ablation["drops"][1] == [0.1, 0.3]
    assert data["notes"] == []
    weights.write_bytes(b"other weights")
    data = data_of(place.folder / "one")
    assert data["runs"][0]["ablation"] is None
    assert "belongs to other weights than those in best/" in data["notes"][0]


def test_a_note_reports_that_routes_and_scores_are_of_different_steps(place):
    notes = data_of(place.folder / "one", step="30", kind="chosen")["notes"]
    assert "routes are of step 30, but scores" in notes[0]
    assert "of step 20" in notes[0]
    assert "each layer's expert of largest weight" in notes[1]


@pytest.mark.parametrize("kind", ["soft", "chosen", "soft_t1"])
def test_order_equals_similarity_png_and_nearest_tasks_equal_neighbours_csv(place, monkeypatch, kind):
    run, drawn = place.folder / "one", []
    draw = np.random.default_rng(3)
    for step in (10, 20, 30):  # temperature changes which tasks are similar
        weights_NLE = draw.dirichlet(np.full(3, 0.5), (6, 3)).astype(np.float32)
        np.save(run / f"{step}-steps" / "route_t1.npy", weights_NLE)
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure))
    words = [str(run), "--routes", kind, "--neighbours", "12", "--output_dir", str(place.folder / "tables")]
    assert inspect_routes.main(words) == 0
    data = data_of(run, kind=kind)
    order = [row["task"] for row in sorted(data["tasks"], key=lambda row: row["ranks"][1])]
    assert [rows_from_the_top(figure, order) for figure in similarity_pictures(drawn)] == [order, order]
    table = pd.read_csv(place.folder / "tables" / "neighbours.csv")
    nearest = pd.DataFrame(data["runs"][0]["nearest"])
    assert nearest[["task", "other"]].to_numpy().tolist() == table[["task", "neighbour"]].to_numpy().tolist()
    assert nearest["overlap"].tolist() == pytest.approx(table["overlap"].tolist(), abs=1e-3)


def similarity_pictures(figures):
    return [f for f in figures if any("overlap" in text.get_text() for text in f.findobj(Text))]


def rows_from_the_top(figure, names):
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text() in names]
    return [text.get_text() for text in sorted(texts, key=lambda text: -text.get_window_extent().y0)]


def test_mean_scores_are_means_over_tasks_of_their_mean_over_samples():
    rows = [("one", "a", 0.0, 0.1), ("one", "a", 0.5, 0.1), ("one", "b", 0.75, 0.3), ("one", "c", 0.4, None)]
    rows += [("two", "a", 0.5, 0.1), ("two", "b", 0.25, 0.3), ("two", "c", 0.1, None)]
    scores = pd.DataFrame(rows, columns=["run", "task", "score", "constant"]).assign(files="dev, train tasks")
    tasks = [{"task": task, "category": kind} for task, kind in (("c", "q"), ("a", "p"), ("b", "p"))]
    means = mean_scores(scores, tasks)
    assert [kind for _, kind in means.index] == ["all tasks", "q", "p"]
    p = means.loc[("dev, train tasks", "p")]
    assert p[["one", "two", "difference", "constant", "tasks"]].tolist() == pytest.approx(
        [0.5, 0.375, -0.125, 0.2, 2]
    )
    assert means.loc[("dev, train tasks", "all tasks"), "two"] == pytest.approx(0.85 / 3)


def test_the_page_is_one_reproducible_file_of_one_to_two_megabytes(tmp_path):
    ontology, draw, runs = Ontology.load(), np.random.default_rng(0), []
    tasks = ontology.tasks[:80]
    for name in ("one", "two"):
        values_NLE = draw.dirichlet(np.full(3, 0.3), (80, 12))
        routes = Routes(name, tasks, layer_names(6, range(12)), values_NLE, 1)
        runs.append(ExplainedRun(tmp_path / name, {}, routes, ontology, features_of(tasks, ontology)))
    data = report_data(runs, ReportSettings(runs=[], permutations=20))
    page = render(data)
    assert 1e6 < len(page) < 2e6
    assert page == render(data)
    assert "default-src 'none'" in page
