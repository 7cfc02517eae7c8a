"""The sections of the report page as HTML: headings, notes, places of charts, and tables by pandas."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from routing_moe.report.data import UNIT
from routing_moe.results.scores import BASELINES, with_values


def sections(data: dict, charts: Collection[str]) -> dict[str, str]:
    """Returns {title: HTML} of the sections that have something to show. charts: names of the charts."""
    runs = data["runs"]
    texts = {
        "Routes": _routes(data),
        "Clusters": _clusters(runs),
        "Scores": _scores(data) if "scores" in charts else "",
        "Curves": _place("curves") if "curves" in charts else "",
        "Correlations": _correlations(runs) if "correlations" in charts else "",
        "Recovery": _recovery(runs),
        "Ablation": "".join(_ablation(run, data["tasks"]) for run in runs if run["ablation"]),
        "Settings": _settings(runs),
    }
    if "ablation" in charts:
        texts["Ablation"] = _text("p", DROPS) + _place("ablation") + texts["Ablation"]
    return {title: text for title, text in texts.items() if text}


def table(frame: pd.DataFrame, kind: str = "data") -> str:
    """Returns a table that scrolls; numbers have three significant digits, markup is escaped."""
    with pd.option_context("display.max_colwidth", None):
        options = dict(na_rep="–", float_format="%.3g", border=0, classes=kind, index_names=False)
        return f'<div class="scroll">{frame.to_html(**options)}</div>'


def _text(tag: str, text: str) -> str:
    return f"<{tag}>{html.escape(text)}</{tag}>"


def _place(chart: str) -> str:
    return f'<div class="chart" id="{chart}-chart"></div>'


# ---------------------------------------------------------------------------- routes and scores

ROUTES = (
    "The weight that each task (row) gives to each expert of each layer (column). Click on a cell to choose "
    "its task and its layer, or on a name to choose one: both are marked in all charts of the page, which "
    "show the nearest tasks, the load of the layer's experts, and the task's scores and drops."
)
CLUSTERS = (
    "The clusters of task vectors that training started with, each with an expert: their sizes, and the mean "
    "silhouette over the tasks (1: apart, 0: not). Clouds: as many vectors of the same covariance without "
    "clusters, clustered in the same way; their mean silhouette, and the share of draws that reach that of "
    "the tasks. Of random:..., whose tasks are permuted, the sizes hold, but not the silhouette."
)
DROPS = (
    "Drop: score before minus after ablating the expert; above 0 the expert helped. Mean over tasks; point "
    "at a cell for the number of tasks and the largest drop."
)
SCORES = (
    "Scores of the best checkpoint of each run, by each task's own metric (mean over samples). Tick: the "
    "same answer to all examples. Point at a dot for the other measures."
)
MEANS = (
    "Means over tasks; a task's samples are averaged first. Answers without a model: the same to all "
    "examples (constant), a random option (chance, mean over the tasks with options), the input (copy)."
)


def _routes(data: dict) -> str:
    legend = ""
    for category in data["categories"]:
        kinds = [category, *category["subcategories"]]
        entries = [
            f'<i style="background:{html.escape(kind["colour"])}"></i>{html.escape(kind["name"])}'
            for kind in kinds
        ]
        legend += f"<div><b>{entries[0]}</b>{''.join(entries[1:])}</div>"
    details = f'<details class="legend" open><summary>Colours of categories</summary>{legend}</details>'
    beside = '<div id="nearest-chart"></div><div id="load-chart"></div>'
    maps = f'<div class="maps"><div id="routes-chart"></div><aside>{beside}</aside></div>'
    return _text("p", ROUTES) + details + maps


def _clusters(runs: Sequence[dict]) -> str:
    tables = {run["name"]: run["clusters"] for run in runs if not run["clusters"].empty}
    return _text("p", CLUSTERS) + table(pd.concat(tables).droplevel(1)) if tables else ""


def _scores(data: dict) -> str:
    scores = data["scores"]
    means = table(mean_scores(scores, data["tasks"]))
    rows = ["files", "task", "sample", "metric"]
    wide = scores.pivot_table("score", rows, "run", sort=False).reindex(columns=scores["run"].unique())
    others = scores.groupby(rows, sort=False)[[*with_values(scores, BASELINES), "n"]].first()
    every = f"<details><summary>All scores</summary>{table(wide.join(others))}</details>"
    return _text("p", SCORES) + _place("scores") + _text("p", MEANS) + means + every


def mean_scores(scores: pd.DataFrame, tasks: Sequence[dict]) -> pd.DataFrame:
    """Returns a row per files and category ("all tasks" first), a column per run, their difference if two.

    A task's samples are averaged first. BASELINES: their mean scores; tasks: with a score.
    """
    names, baselines = list(dict.fromkeys(scores["run"])), with_values(scores, BASELINES)
    category = {row["task"]: row["category"] for row in tasks}
    by_task = scores.groupby(["files", "run", "task"], sort=False)[["score", *baselines]].mean().reset_index()
    by_task["category"] = by_task["task"].map(category)
    both = pd.concat([by_task.assign(category="all tasks"), by_task])
    means = both.pivot_table("score", ["files", "category"], "run", sort=False).reindex(columns=names)
    if len(names) == 2:
        means["difference"] = means[names[1]] - means[names[0]]
    groups = both.groupby(["files", "category"], sort=False)
    means = means.join(groups[baselines].mean()).assign(tasks=groups["task"].nunique())
    kinds = itertools.product(scores["files"].unique(), dict.fromkeys(["all tasks", *category.values()]))
    return means.loc[[kind for kind in kinds if kind in means.index]]


# ---------------------------------------------------------------------------- tests


def _correlations(runs: Sequence[dict]) -> str:
    notes = [f"{run['name']}: {run['correlations']['note']}" for run in runs if run["correlations"]]
    lead = "A dot marks q < 0.05; point at a cell for p and q."
    return "".join(_text("p", text) for text in (lead, *notes)) + _place("correlations")


def _recovery(runs: Sequence[dict]) -> str:
    tables = [run["recovery"].assign(run=run["name"]) for run in runs if not run["recovery"].empty]
    if not tables:
        return ""
    note = (
        "Do tasks with similar routes have similar features? AMI: adjusted mutual information of clusters of "
        "routes and labels, 0 by chance; Mantel's r: correlation of tasks' distances by routes and by "
        "features. p by permutations; q by Benjamini and Yekutieli over all tests of a run."
    )
    rows = pd.concat(tables).sort_values("kind", kind="stable").set_index(["kind", "run"])
    return _text("p", note) + table(rows.rename(columns=lambda name: name.replace("_q_by", " q (BY)")))


# ---------------------------------------------------------------------------- ablation


def _ablation(run: dict, tasks: Sequence[dict]) -> str:
    """Returns the note and the table of the experts of a run."""
    names = [f"{layer}, expert {expert}" for layer in run["layers"] for expert in range(run["experts"])]
    drops = table(expert_drops(run, names, tasks))
    return _text("h3", run["name"]) + _text("p", run["ablation"]["note"]) + drops


def expert_drops(run: dict, names: Sequence[str], tasks: Sequence[dict]) -> pd.DataFrame:
    """Returns a row per ablated expert, the largest mean drop first."""
    load_C = np.mean([row["weights"] for row in run["routes"]], axis=0) / UNIT
    rows = {}
    for name, load, drops in zip(names, load_C, run["ablation"]["drops"], strict=True):
        pairs = zip(run["ablation"]["tasks"], drops, strict=True)
        known = sorted(((t, d) for t, d in pairs if d is not None), key=lambda pair: -pair[1])
        if known:
            mean = sum(drop for _, drop in known) / len(known)
            worst = _worst([pair for pair in known[:3] if pair[1] > 0], tasks)
            rows[name] = {"load": load, "mean drop": mean, "tasks": len(known), "worst": worst}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.sort_values("mean drop", ascending=False, kind="stable")


def _worst(pairs: Sequence, tasks: Sequence[dict]) -> str:
    return ", ".join(f"{tasks[number]['task']} {drop:.3f}" for number, drop in pairs)


# ---------------------------------------------------------------------------- settings


def _settings(runs: Sequence[dict]) -> str:
    """Returns the settings of the runs, those that differ first, and where the runs come from."""
    values = pd.DataFrame({run["name"]: {k: _plain(v) for k, v in run["settings"].items()} for run in runs})
    text = ""
    if not values.empty:
        values = values.fillna("–")
        differs = values.nunique(axis=1) > 1
        if len(runs) > 1:
            values.insert(0, "differs", differs.map({True: "yes", False: ""}))
        text = table(pd.concat([values[differs], values[~differs]]), "text")
    origins = pd.DataFrame({run["name"]: {k: _plain(v) for k, v in run["origin"].items()} for run in runs})
    return text + _text("h3", "Origin of the runs") + table(origins, "text")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else "–" if value is None else json.dumps(value)
