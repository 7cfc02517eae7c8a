"""What the report page shows: a function of the run folders alone.

    data = report_data(read_runs(["models/moe"]), ReportSettings(runs=["models/moe"]))
    Path("report.html").write_text(render(data))           # routing_moe.report.page

Rows of charts are dictionaries whose numbers are rounded, and None where they are unknown; tables of the page
are data frames. Lists over the experts of a run have expert e of layer l at l * E + e.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from dataloader.gym import PARTS
from dataloader.jsonfile import load_json_object
from dataloader.ontology import Ontology
from routing_moe.analysis.clustering import cluster_order
from routing_moe.analysis.correlation import PERMUTATIONS, top_experts
from routing_moe.analysis.markdown import SIGNIFICANT, cautions
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.route_tables import neighbour_table
from routing_moe.analysis.runs import ExplainedRun, notes_of
from routing_moe.analysis.saved_routes import best_step, steps_with_routes
from routing_moe.config.explain import ReportSettings
from routing_moe.io.csv_files import read_table
from routing_moe.io.run_folder import CLUSTERS_FILE
from routing_moe.pictures.style import kind_colours
from routing_moe.report.ablation import ablation_data, other_checkpoint
from routing_moe.report.curves import curves_data, rounded
from routing_moe.report.files import explain
from routing_moe.results.scores import BASELINES, MEASURE_COLUMNS, ScoresFile, read_scores

MOST_CORRELATIONS = 2000  # rows of a run, besides the strongest of each feature
UNIT = 10_000  # weights are integers, in parts of 1 / UNIT, which is shorter in JSON
NEAREST = 12  # tasks with the largest overlap of routes that are shown for each task
TOP = 3  # experts of each feature that are always shown


def report_data(runs: Sequence[ExplainedRun], settings: ReportSettings) -> dict:
    """Returns the data for `page.render`. Raises InputError for a file of a run that cannot be read.

    title, notes, categories: [{name, colour, subcategories: [{name, colour}]}], tasks: [{task, category,
    subcategory, colour, shade, features, ranks}], runs: what `_run` returns, scores: a table of all runs.
    """
    scores = [scores_of(run.place) for run in runs]
    ontology = runs[0].ontology
    tasks = all_tasks(runs, scores)
    other_weights = {run.name: note for run in runs if (note := other_checkpoint(run.place))}
    tests = zip(*explain(runs, settings.permutations, settings.seed), strict=True)
    explained = [
        _run(run, run.name not in other_weights, tasks, *tables, settings.permutations or PERMUTATIONS)
        for run, tables in zip(runs, tests, strict=True)
    ]
    notes = [*notes_of(runs), *_route_notes(runs), *other_weights.values(), *_ontology_notes(runs)]
    return {
        "title": settings.title or "Routes of " + ", ".join(run.name for run in runs),
        "notes": notes,
        "categories": _categories(ontology, tasks),
        "tasks": _tasks(tasks, runs, ontology),
        "runs": explained,
        "scores": pd.concat([_scores(run, tables) for run, tables in zip(runs, scores, strict=True)]),
    }


# ---------------------------------------------------------------------------- tasks


def all_tasks(runs: Sequence[ExplainedRun], scores: Sequence[dict[tuple, pd.DataFrame]]) -> list[str]:
    """Returns every task with a route or a score, in the order of the first run's ontology."""
    tasks = {task for run in runs for task in run.routes.tasks}
    tasks |= {task for tables in scores for table in tables.values() for task in table["task_prefix"]}
    return runs[0].ontology.order(tasks)


def _tasks(tasks: Sequence[str], runs: Sequence[ExplainedRun], ontology: Ontology) -> list[dict]:
    """Returns a row per task; ranks: its places by category, and by similarity of routes in each run."""
    colours, rows = kind_colours(ontology), []
    orders = [_similar_order(run) for run in runs]
    for place, task in enumerate(tasks):
        category, sub = ontology.category(task)
        in_runs = [order.get(task, len(tasks) + place) for order in orders]  # others come last
        features = dict.fromkeys(name for run in runs for name in _features(task, run))
        rows.append(
            {
                "task": task, "category": category, "subcategory": sub,
                "colour": to_hex(colours[category, ""]), "shade": to_hex(colours[category, sub]),
                "features": ", ".join(features), "ranks": [place, *in_runs],
            }
        )  # fmt: skip
    return rows


def _similar_order(run: ExplainedRun) -> dict[str, int]:
    """Returns {task: place} in the order of similarity.png."""
    routes = run.routes
    order = cluster_order(overlap(routes.values_NLE), routes.tasks, run.ontology)
    return {routes.tasks[row]: place for place, row in enumerate(order)}


def _features(task: str, run: ExplainedRun) -> list[str]:
    """Returns the binary features of a task other than its category and subcategory."""
    if task not in run.features.tasks:
        return []
    row = run.features.values_NF[run.features.tasks.index(task)]
    names = [name for name, value in zip(run.features.names, row, strict=True) if value == 1]
    return [name for name in names if not name.startswith(("category:", "subcategory:"))]


def _categories(ontology: Ontology, tasks: Sequence[str]) -> list[dict]:
    """Returns the categories that occur, in the ontology's order, with their colours in pictures."""
    colours = kind_colours(ontology)
    kinds = dict.fromkeys(ontology.category(task) for task in tasks)
    rows = []
    for category in dict.fromkeys(category for category, _ in kinds):
        subs = [kind for kind in kinds if kind[0] == category]
        shades = [{"name": sub, "colour": to_hex(colours[category, sub])} for _, sub in subs]
        rows.append({"name": category, "colour": to_hex(colours[category, ""]), "subcategories": shades})
    return rows


def _route_notes(runs: Sequence[ExplainedRun]) -> list[str]:
    """Notes on runs whose routes differ from those behind the scores of the best checkpoint."""
    notes = []
    for run in runs:
        steps = steps_with_routes(run.place)
        best = best_step(run.place, steps) if steps else run.routes.step
        if run.routes.step != best:
            notes.append(
                f"{run.name}: routes are of step {run.routes.step}, but scores and (unless "
                f"stated otherwise) the ablation are of the best checkpoint, of step {best}"
            )
        if run.routes.kind != "soft":
            kinds = {"chosen": "each layer's expert of largest weight", "soft_t1": "softmax at temperature 1"}
            notes.append(f"{run.name}: routes are shown as {kinds[run.routes.kind]} (--routes)")
    return notes


def _ontology_notes(runs: Sequence[ExplainedRun]) -> list[str]:
    first = runs[0]
    return [
        f"{run.name}: its ontology differs from that of {first.name}, whose categories are shown"
        for run in runs[1:]
        if any(first.ontology.category(task) != run.ontology.category(task) for task in run.routes.tasks)
    ]


# ---------------------------------------------------------------------------- runs


def _run(
    run: ExplainedRun,
    with_ablation: bool,
    tasks: Sequence[str],
    correlations: pd.DataFrame,
    recovery: pd.DataFrame,
    permutations: int,
) -> dict:
    """Returns what the page shows of a run; charts have rows, tables are data frames."""
    routes, path = run.routes, run.place / "run.json"
    description = load_json_object(path, "the description of a run") if path.is_file() else {}
    clusters = run.place / CLUSTERS_FILE
    weights = np.rint(UNIT * routes.values_NLE.reshape(len(routes.tasks), -1)).astype(int).tolist()
    number = {task: n for n, task in enumerate(tasks)}
    nearest = neighbour_table(routes, overlap(routes.values_NLE), run.ontology, NEAREST)
    return {
        "name": run.name,
        "origin": {"folder": str(run.place), "step": routes.step}
        | {name: description.get(name) for name in ("git", "command")},
        "settings": run.settings
        | {f"version of {name}": version for name, version in (description.get("versions") or {}).items()},
        "clusters": read_table(clusters) if clusters.is_file() else pd.DataFrame(),
        "curves": curves_data(run.place, routes.kind),
        "layers": list(routes.layers),
        "experts": routes.experts,
        "routes": [{"task": t, "weights": row} for t, row in zip(routes.tasks, weights, strict=True)],
        "nearest": [
            {"task": row.task, "other": row.neighbour, "overlap": rounded(row.overlap)}
            for row in nearest.itertuples()
        ],
        "correlations": _correlations(run, correlations, permutations),
        "recovery": recovery,
        "ablation": ablation_data(run.place, routes, number) if with_ablation else None,
    }


def scores_of(run: Path, checkpoint_name: str = "best") -> dict[tuple[str, str], pd.DataFrame]:
    """Returns {(part, section): scores} of a checkpoint, for score files that exist."""
    keys = [(part, section) for section in PARTS for part in ("test", "dev")]
    files = {key: run / ScoresFile(*key, checkpoint_name).path for key in keys}
    return {key: read_scores(file) for key, file in files.items() if file.is_file()}


def _scores(run: ExplainedRun, scores: dict[tuple, pd.DataFrame]) -> pd.DataFrame:
    """Returns a row per file: run, files (such as "test, train tasks"), task, sample, metric, score, ..."""
    names = {"task_prefix": "task", "performance": "score"}
    tables = [
        table.assign(run=run.name, files=f"{part}, {section} tasks")
        for (part, section), table in scores.items()
    ]
    columns = ["run", "files", "task", "sample", "metric", "score", "n", *BASELINES, *MEASURE_COLUMNS]
    both = pd.concat(tables) if tables else pd.DataFrame()
    return both.rename(columns=names).reindex(columns=columns)


def _correlations(run: ExplainedRun, table: pd.DataFrame, permutations: int) -> dict | None:
    """Returns the significant correlations, and the strongest of each feature."""
    if table.empty:
        return None
    strong = top_experts(table, TOP, either_sign=True).set_index(["layer", "expert", "feature"]).index
    in_top = table.set_index(["layer", "expert", "feature"]).index.isin(strong)
    others = table.index[(table["q"] < SIGNIFICANT) & ~in_top]  # the smallest p first
    listed = table[in_top | table.index.isin(others[:MOST_CORRELATIONS])]
    first = {layer: place * run.routes.experts for place, layer in enumerate(run.routes.layers)}
    rows = [
        {
            "feature": row.feature, "column": first[row.layer] + int(row.expert),
            "tasks": int(row.tasks if pd.isna(row.with_feature) else row.with_feature),
            **{name: rounded(getattr(row, name), 3) for name in ("r", "p", "q", "q_by")},
        }
        for row in listed.itertuples()
    ]  # fmt: skip
    significant, strictly = (int((table[q] < SIGNIFICANT).sum()) for q in ("q", "q_by"))
    most = f" ({MOST_CORRELATIONS} of them)" if len(others) > MOST_CORRELATIONS else ""
    note = (
        f"Pearson's r of an expert's weight with a feature, over {len(run.routes.tasks)} tasks; p by "
        f"{permutations} permutations, q by Benjamini and Hochberg over {len(table)} tests, of which "
        f"{significant} have q < {SIGNIFICANT}. Shown: these{most}, and for each feature the {TOP} largest "
        f"|r|. q (BY): by Benjamini and Yekutieli, valid under any dependence; {strictly} are below "
        f"{SIGNIFICANT}. tasks: with the feature.{cautions(table, run.features, permutations)}"
    )
    return {"note": note, "rows": rows}
