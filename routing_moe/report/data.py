"""The data of the report page, as JSON values: a function of the run folders alone.

    data = report_data(read_runs(["models/moe"]), ReportSettings(runs=["models/moe"]))
    Path("report.html").write_text(render(data))           # routing_moe.report.page

tests/page_data.py documents the shape of the data. Numbers are rounded, unknown values are None.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from tqdm import tqdm

from dataloader.errors import InputError, in_brief
from dataloader.gym import PARTS, evenly_spread
from dataloader.jsonfile import load_json_object
from dataloader.metrics import evaluate
from dataloader.ontology import Ontology
from routing_moe.analysis.clustering import cluster_order
from routing_moe.analysis.correlation import PERMUTATIONS, correlate, top_experts
from routing_moe.analysis.markdown import SIGNIFICANT, cautions
from routing_moe.analysis.recovery import PERMUTATIONS as RECOVERY_PERMUTATIONS
from routing_moe.analysis.recovery import recovery_table
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.route_tables import neighbour_table
from routing_moe.analysis.runs import ExplainedRun, notes_of
from routing_moe.analysis.saved_routes import best_step, evaluated_steps
from routing_moe.analysis.stability import PERMUTATIONS as STABILITY_PERMUTATIONS
from routing_moe.analysis.stability import stability
from routing_moe.config.explain import ReportSettings
from routing_moe.plots.task_categories import kind_colours
from routing_moe.report.ablation import ablation_data, other_checkpoint
from routing_moe.report.curves import curves_data, rounded
from routing_moe.results.scores import ScoresFile, read_scores

MOST_CORRELATIONS = 2000  # rows of a run's table, besides the strongest of each feature
RECOVERED = ("ami", "ami_p", "ami_q_by", "mantel_r", "mantel_p", "mantel_q_by")
UNIT = 10_000  # weights are integers, in parts of 1 / UNIT, which is shorter in JSON
NEAREST = 12  # tasks with the largest overlap of routes that are shown for each task
TOP = 3  # experts of each feature that are always shown
LONGEST_TEXT = 600  # characters of an input, answer or prediction
MOST_ANSWERS = 4


def report_data(runs: Sequence[ExplainedRun], settings: ReportSettings) -> dict:
    """Returns the data for `page.render`. Raises InputError for a file of a run that cannot be read."""
    scores = [scores_of(run.place) for run in runs]
    tasks = all_tasks(runs, scores)
    number = {task: n for n, task in enumerate(tasks)}
    ontology = runs[0].ontology
    pairs, unmatched = _stability(runs, settings)
    stale = {run.name: note for run in runs if (note := other_checkpoint(run.place))}
    with tqdm(zip(runs, scores, strict=True), "explaining", len(runs), leave=False, unit="run") as bar:
        explained = [_run(run, own, number, settings) for run, own in bar]
    for run in explained:
        run["ablation"] = None if run["name"] in stale else run["ablation"]
    return {
        "title": settings.title or "Routes of " + ", ".join(run.name for run in runs),
        "notes": [*notes_of(runs), *_route_notes(runs), *stale.values(), *_ontology_notes(runs), *unmatched],
        "categories": _categories(ontology, tasks),
        "tasks": [_task(task, runs, ontology) for task in tasks],
        "runs": explained,
        "stability": pairs,
    }


# ---------------------------------------------------------------------------- tasks


def all_tasks(runs: Sequence[ExplainedRun], scores: Sequence[dict[str, pd.DataFrame]]) -> list[str]:
    """Returns every task with a route or a score, in the order of the first run's ontology."""
    tasks = {task for run in runs for task in run.routes.tasks}
    tasks |= {task for tables in scores for table in tables.values() for task in table["task_prefix"]}
    return runs[0].ontology.order(tasks)


def _task(task: str, runs: Sequence[ExplainedRun], ontology: Ontology) -> dict:
    """Returns the task's name, category and subcategory, and its features of other kinds."""
    category, sub = ontology.category(task)
    features: list[str] = []
    for run in runs:
        if task in run.features.tasks:
            row = run.features.values_NF[run.features.tasks.index(task)]
            held = [name for name, value in zip(run.features.names, row, strict=True) if value == 1]
            features += [n for n in held if not n.startswith(("category:", "subcategory:"))]
    return {"name": task, "category": category, "subcategory": sub, "features": list(dict.fromkeys(features))}


def _categories(ontology: Ontology, tasks: Sequence[str]) -> list[dict]:
    """Returns the categories that occur, in the ontology's order, with their colours in pictures."""
    colours = kind_colours(ontology)
    present = dict.fromkeys(ontology.category(task) for task in tasks)
    found = []
    for category in dict.fromkeys(kind[0] for kind in present):
        subs = [kind for kind in present if kind[0] == category]
        shades = [{"name": sub, "colour": to_hex(colours[category, sub])} for _, sub in subs]
        found.append({"name": category, "colour": to_hex(colours[category, ""]), "subcategories": shades})
    return found


def _route_notes(runs: Sequence[ExplainedRun]) -> list[str]:
    """Notes on runs whose routes differ from those behind the scores of the best checkpoint."""
    notes = []
    for run in runs:
        steps = evaluated_steps(run.place)
        best = best_step(run.place, steps) if steps else run.routes.step
        if run.routes.step != best:
            notes.append(
                f"{run.name}: routes are of step {run.routes.step}, but scores, predictions and (unless "
                f"stated otherwise) the ablation are of the best checkpoint, of step {best}"
            )
        if run.routes.kind != "soft":
            what = {"chosen": "each layer's expert of largest weight", "soft_t1": "softmax at temperature 1"}
            notes.append(f"{run.name}: routes are shown as {what[run.routes.kind]} (--routes)")
    return notes


def _ontology_notes(runs: Sequence[ExplainedRun]) -> list[str]:
    first = runs[0]
    return [
        f"{run.name}: its ontology differs from that of {first.name}, whose categories are shown"
        for run in runs[1:]
        if any(first.ontology.category(task) != run.ontology.category(task) for task in run.routes.tasks)
    ]


# ---------------------------------------------------------------------------- runs


def _run(run: ExplainedRun, scores: dict, number: dict[str, int], settings: ReportSettings) -> dict:
    routes = run.routes
    overlap_NN = overlap(routes.values_NLE)
    described = _described(run.place)
    return {
        "name": run.name,
        "folder": str(run.place),
        "step": routes.step,
        "command": described.get("command"),
        "git": described.get("git"),
        "versions": _without_infinity(described.get("versions") or {}),
        "settings": _without_infinity(run.settings),
        "curves": curves_data(run.place, routes.kind),
        "layers": list(routes.layers),
        "experts": routes.experts,
        "tasks": [number[task] for task in routes.tasks],
        "routes": np.rint(UNIT * routes.values_NLE.reshape(len(routes.tasks), -1)).astype(int).tolist(),
        "order": [number[routes.tasks[row]] for row in cluster_order(overlap_NN, routes.tasks, run.ontology)],
        "nearest": _nearest(run, overlap_NN, number),
        "scores": [_scores(*key, table, number) for key, table in scores.items()],
        "correlations": _correlations(run, settings),
        "recovery": _recovery(run, settings),
        "ablation": ablation_data(run.place, routes, number),
        "predictions": _predictions(run.place, scores, number, settings.samples),
    }


def _nearest(run: ExplainedRun, overlap_NN: np.ndarray, number: dict[str, int]) -> list[list]:
    """Returns [[task, overlap], ...] of the tasks nearest to each task of the run, the most similar first."""
    nearest = {task: [] for task in run.routes.tasks}
    for row in neighbour_table(run.routes, overlap_NN, run.ontology, NEAREST).itertuples():
        nearest[row.task].append([number[row.neighbour], rounded(row.overlap)])
    return list(nearest.values())


def _without_infinity(values: dict) -> dict:
    """Returns the values with infinite numbers and NaN as text: JSON has none (--max_grad_norm inf)."""
    return json.loads(json.dumps(values), parse_constant=str)


def _described(place: Path) -> dict:
    path = place / "run.json"
    return load_json_object(path, "the description of a run") if path.is_file() else {}


def scores_of(run: Path, checkpoint_name: str = "best") -> dict[tuple[str, str], pd.DataFrame]:
    """Returns {(part, section): scores} of a checkpoint, for score files that exist."""
    keys = [(part, section) for section in PARTS for part in ("test", "dev")]
    files = {key: run / ScoresFile(*key, checkpoint_name).path for key in keys}
    return {key: read_scores(file) for key, file in files.items() if file.is_file()}


def _scores(part: str, section: str, table: pd.DataFrame, number: dict[str, int]) -> dict:
    rows = [
        [
            number[row.task_prefix], row.sample, row.metric, rounded(row.performance), int(row.n),
            rounded(row.constant),
        ]
        for row in table.itertuples()
    ]  # fmt: skip
    return {"part": part, "section": section, "rows": rows}


def _correlations(run: ExplainedRun, settings: ReportSettings) -> dict | None:
    """Returns the significant correlations, and the strongest of each feature."""
    permutations = settings.permutations or PERMUTATIONS
    table = correlate(run.routes, run.features, permutations, settings.seed)
    if table.empty:
        return None
    strong = top_experts(table, TOP, either_sign=True).set_index(["layer", "expert", "feature"]).index
    in_top = table.set_index(["layer", "expert", "feature"]).index.isin(strong)
    others = table.index[(table["q"] < SIGNIFICANT) & ~in_top]  # the smallest p first
    shown = table[in_top | table.index.isin(others[:MOST_CORRELATIONS])]
    layer = {name: place for place, name in enumerate(run.routes.layers)}
    rows = [
        [
            row.feature, layer[row.layer], int(row.expert), rounded(row.r, 3), rounded(row.p, 3),
            rounded(row.q, 3), int(row.tasks if pd.isna(row.with_feature) else row.with_feature),
            rounded(row.q_by, 3),
        ]
        for row in shown.itertuples()
    ]  # fmt: skip
    found, strictly = (int((table[q] < SIGNIFICANT).sum()) for q in ("q", "q_by"))
    most = f" ({MOST_CORRELATIONS} of them)" if len(others) > MOST_CORRELATIONS else ""
    note = (
        f"Pearson's r of an expert's weight with a feature, over {len(run.routes.tasks)} tasks; p by "
        f"{permutations} permutations, q by Benjamini and Hochberg over {len(table)} tests, of which {found} "
        f"have q < {SIGNIFICANT}. Shown: these{most}, and for each feature the {TOP} largest |r|. "
        f"q (BY): by Benjamini and Yekutieli, valid under any dependence; {strictly} are below "
        f"{SIGNIFICANT}. n: tasks with the feature.{cautions(table, run.features, permutations)}"
    )
    return {"note": note, "rows": rows}


def _recovery(run: ExplainedRun, settings: ReportSettings) -> dict | None:
    permutations = settings.permutations or RECOVERY_PERMUTATIONS
    table = recovery_table(run.routes, run.features, permutations, settings.seed)
    if table.empty:
        return None
    rows = [
        [row.kind, int(row.tasks), *(rounded(getattr(row, name), 3) for name in RECOVERED)]
        for row in table.itertuples()
    ]
    note = (
        "AMI: adjusted mutual information of clusters of routes and labels, 0 by chance; Mantel's r: "
        "correlation of tasks' distances by routes and by features. p by "
        f"{permutations} permutations; q by Benjamini and Yekutieli over all tests."
    )
    return {"note": note, "rows": rows}


def _predictions(place: Path, scores: dict, number: dict[str, int], samples: int) -> list[dict]:
    """Some predictions for each scored task, evenly spread over its file; test files before dev files."""
    found: dict[str, dict] = {}
    for (part, section), table in scores.items():
        folder = place / Path(ScoresFile(part, section).path).parent / "predictions"
        for row in table.drop_duplicates("task_prefix").itertuples():
            path = folder / f"{row.sample}_{part}.jsonl"
            if row.task_prefix not in found and samples and path.is_file():
                lines = _some_predictions(path, samples)
                found[row.task_prefix] = {"task": number[row.task_prefix], "part": part, "samples": lines}
    return [found[task] for task in sorted(found, key=number.__getitem__)]


def _some_predictions(path: Path, count: int) -> list[dict]:
    shown = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in evenly_spread([line for line in lines if line], count):
            row = json.loads(line)
            prediction, answers = str(row["prediction"]), list(map(str, row["answers"]))
            shown.append(
                {
                    "input": _cut(str(row["input"])),
                    "answers": list(map(_cut, answers[:MOST_ANSWERS])),
                    "more_answers": max(0, len(answers) - MOST_ANSWERS),
                    "prediction": _cut(prediction),
                    "exact": evaluate([prediction], [answers], "EM") == 1,
                }
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file of predictions ({in_brief(error)})") from None
    return shown


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


# ---------------------------------------------------------------------------- between runs


def _stability(runs: Sequence[ExplainedRun], settings: ReportSettings) -> tuple[list[dict], list[str]]:
    """Returns (agreement of each pair of runs, why some pairs cannot be compared)."""
    pairs, notes = [], []
    for (a, one), (b, other) in itertools.combinations(enumerate(runs), 2):
        try:
            permutations = settings.permutations or STABILITY_PERMUTATIONS
            found = stability(one.routes, other.routes, permutations, settings.seed)
        except InputError as error:
            notes += error.faults
            continue
        layers = [[r.layer, rounded(r.overlap, 3), r.matching] for r in found.table.itertuples()]
        pairs.append(
            {
                "a": a, "b": b, "overlap": rounded(found.overlap, 3), "chance": rounded(found.chance, 3),
                "p": rounded(found.p, 3), "permutations": found.permutations, "layers": layers,
            }
        )  # fmt: skip
    return pairs, notes
