"""The data of the report page equal the runs' files; notes report where these do not match."""

import hashlib
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from planted_routes import write_place

from routing_moe.analysis.correlation import correlate
from routing_moe.analysis.runs import read_runs
from routing_moe.analysis.saved_routes import load_routes
from routing_moe.cli import inspect_routes, report
from routing_moe.config.explain import ReportSettings
from routing_moe.report import data as report_data_module
from routing_moe.report.data import report_data
from routing_moe.report.page import render


@pytest.fixture
def place(tmp_path):
    return write_place(tmp_path)


def page_data_of(path) -> dict:
    text = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text(), re.DOTALL)[1]
    return json.loads(text)


def test_the_page_of_a_trained_run_shows_its_files(finished, tmp_path, capsys):
    path = tmp_path / "page.html"
    words = [str(finished), "--permutations", "50", "--samples", "2", "--output_file", str(path)]
    assert report.main(words) == 0
    assert path.resolve().as_uri() in capsys.readouterr().out
    data = page_data_of(path)
    (run,) = data["runs"]
    named = [task["name"] for task in data["tasks"]]
    routes = load_routes(finished)
    assert sorted(named[n] for n in run["tasks"]) == sorted(routes.tasks)
    row = run["tasks"].index(named.index("count"))
    expected = 10_000 * routes.values_NLE[routes.tasks.index("count")].ravel()
    assert run["routes"][row] == pytest.approx(expected, abs=0.51)
    scores = next(own for own in run["scores"] if own["part"] == "test" and own["section"] == "train")
    written = pd.read_csv(finished / "best" / "eval-test-performance.csv").set_index("task_prefix")
    for task, sample, metric, score, n, constant in scores["rows"]:
        own = written.loc[named[task]]
        assert (sample, metric, n) == (own["sample"], own["metric"], own["n"])
        assert score == pytest.approx(own["performance"], abs=1e-3)
        assert constant == pytest.approx(own["constant"], abs=1e-3)
    samples = {named[own["task"]]: own["samples"] for own in run["predictions"]}
    assert set(samples) == {"colour", "count", "opposite"}
    line = json.loads((finished / "best/predictions/count_12_100_test.jsonl").read_text().splitlines()[0])
    shown = {key: line[key] for key in ("input", "answers", "prediction")}
    exact = line["prediction"].lower() in [answer.lower() for answer in line["answers"]]
    assert samples["count"][0] == shown | {"exact": exact, "more_answers": 0}
    assert {len(own) for own in samples.values()} == {2}
    curves = {curve["name"]: curve for curve in run["curves"]}
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
    features = [("skill:spell", "enc0.1+dec1.2", "with feature", 3, 0.25, 0.1, np.nan, 1, 0.5, 0.4, 0.3)]
    columns = ["feature", "experts", "group", "tasks", "drop", "random_mean", "random_std", "draws", "p"]
    columns += ["weight", "random_weight"]
    pd.DataFrame(features, columns=columns).to_csv(folder / "features.csv", index=False)
    job = {"part": "dev", "predict_split": "train", "max_examples": 8, "checkpoint_name": "last"}
    (folder / "job.json").write_text(json.dumps(job))
    data = report_data(
        read_runs([place.folder / "one", place.folder / "two"]), ReportSettings(runs=[], permutations=20)
    )
    ablation = data["runs"][0]["ablation"]
    hot = [task["name"] for task in data["tasks"]].index("hot")
    assert ablation["tasks"][0] == hot
    assert ablation["drops"][:3] == [[0.5, 0.5], [0.0, 0.0], [None, None]]
    assert len(ablation["drops"]) == 9
    assert ablation["features"][0]["experts"] == [[0, 1], [2, 2]]
    assert ablation["features"][0]["groups"] == [["with feature", 3, 0.25, 0.1, None, 1, 0.5, 0.4, 0.3]]
    assert "Scores of checkpoint last before minus after ablation" in ablation["note"]
    assert "8 examples of each" in ablation["note"]
    assert "share of 1 random sets" in ablation["note"]
    assert data["runs"][1]["ablation"] is None
    assert [(pair["a"], pair["b"]) for pair in data["stability"]] == [(0, 1)]
    assert data["stability"][0]["permutations"] == 20
    assert data["tasks"][hot]["features"] == ["skill:spell"]
    assert "skill:spell" in render(data)


def test_the_strongest_correlations_of_each_feature_are_shown_with_either_sign(place, monkeypatch):
    runs = read_runs([place.folder / "one"])
    table = correlate(runs[0].routes, runs[0].features, 20)
    monkeypatch.setattr(report_data_module, "SIGNIFICANT", 1.1)
    monkeypatch.setattr(report_data_module, "MOST_CORRELATIONS", 2)
    shown = report_data(runs, ReportSettings(runs=[], permutations=20))["runs"][0]["correlations"]
    wanted = table.assign(size=table["r"].abs()).sort_values("size", ascending=False).groupby("feature")
    sizes = {feature: own["size"].head(3).round(3).tolist() for feature, own in wanted}
    assert any(row[3] < 0 for row in shown["rows"])
    for feature, largest in sizes.items():
        strongest = sorted((abs(row[3]) for row in shown["rows"] if row[0] == feature), reverse=True)
        assert strongest[:3] == pytest.approx(largest, abs=1e-3)
    assert len(shown["rows"]) == 3 * len(sizes) + 2
    assert "Shown: these (2 of them), and for each feature the 3 largest |r|" in shown["note"]
    needed = math.ceil(len(table) / 0.05)
    assert f"With 20 permutations a single true correlation among {len(table)} tests cannot" in shown["note"]
    assert f"that takes --permutations {needed}." in shown["note"]
    assert "For these tasks 1 of the 2 features repeat or negate another." in shown["note"]


def test_an_ablation_of_other_weights_is_left_out_with_a_note(place):
    folder = place.folder / "one" / "analysis" / "ablation"
    folder.mkdir(parents=True)
    sets = [("enc0.1+dec0.0", task, "words", drop) for task, drop in (("hot", 0.1), ("big", 0.3))]
    pd.DataFrame(sets, columns=["experts", "task", "category", "drop"]).to_csv(folder / "sets.csv")
    weights = place.folder / "one" / "best" / "model.safetensors"
    weights.write_bytes(b"weights")
    job = {"part": "dev", "predict_split": "train", "checkpoint_name": "best"}
    job |= {"checkpoint": {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}}
    (folder / "job.json").write_text(json.dumps(job))
    data = report_data(read_runs([place.folder / "one"]), ReportSettings(runs=[], permutations=20))
    named = [task["name"] for task in data["tasks"]]
    worst = [[named.index("big"), 0.3], [named.index("hot"), 0.1]]
    assert data["runs"][0]["ablation"]["sets"] == [["enc0.1+dec0.0", 0.2, worst]]
    assert data["notes"] == []
    weights.write_bytes(b"other weights")
    data = report_data(read_runs([place.folder / "one"]), ReportSettings(runs=[], permutations=20))
    assert data["runs"][0]["ablation"] is None
    assert "belongs to other weights than those in best/" in data["notes"][0]


def test_a_note_reports_that_routes_and_scores_are_of_different_steps(place):
    runs = read_runs([place.folder / "one"], step="30", kind="chosen")
    notes = report_data(runs, ReportSettings(runs=[], permutations=20))["notes"]
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
    data = report_data(read_runs([run], kind=kind), ReportSettings(runs=[], permutations=20))
    names, (shown,) = [task["name"] for task in data["tasks"]], data["runs"]
    order = [names[task] for task in shown["order"]]
    assert [rows_from_the_top(figure, names) for figure in similarity_pictures(drawn)] == [order, order]
    table = pd.read_csv(place.folder / "tables" / "neighbours.csv")
    for task, nearest in zip(shown["tasks"], shown["nearest"], strict=True):
        own = table[table["task"] == names[task]]
        assert [names[other] for other, _ in nearest] == own["neighbour"].tolist()
        assert [value for _, value in nearest] == pytest.approx(own["overlap"].tolist(), abs=1e-3)


def similarity_pictures(figures):
    return [f for f in figures if any("overlap" in text.get_text() for text in f.findobj(Text))]


def rows_from_the_top(figure, names):
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text() in names]
    return [text.get_text() for text in sorted(texts, key=lambda text: -text.get_window_extent().y0)]


def test_the_page_is_reproducible(place):
    path = place.folder / "one" / "analysis" / "report.html"
    pages = []
    for _ in range(2):
        assert report.main([str(place.folder / "one"), "--permutations", "20"]) == 0
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]
