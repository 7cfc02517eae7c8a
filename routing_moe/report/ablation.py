"""The results of `routing-moe ablate` for a run, as data of the report page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dataloader.checksums import sha256
from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.analysis.ablation.expert_sets import FEATURES, JOB_FILE, SETS, TASKS, places_of
from routing_moe.analysis.ablation.tables import number_drawn
from routing_moe.analysis.saved_routes import Routes, run_name
from routing_moe.io.csv_files import read_table
from routing_moe.report.curves import rounded

FOLDER = Path("analysis") / "ablation"  # in the run folder
TEXTS = ("layer", "task", "category", "feature", "experts", "group")  # columns in which "NA" is a name
WORST = 3  # tasks shown of a set


def other_checkpoint(run: Path) -> str | None:
    """Returns why ablation results are left out: they are of other weights than the checkpoint. Else None."""
    job = _job(run)
    if not job or not isinstance(job.get("checkpoint"), dict):
        return None
    checkpoint = run / str(job.get("checkpoint_name", "best"))
    known = {name: checkpoint / name for name in job["checkpoint"]}
    now = {name: sha256(path) for name, path in known.items() if path.is_file()}
    if not now or now == {name: job["checkpoint"][name] for name in now}:
        return None
    return (
        f"{run_name(run)}: {run / FOLDER} belongs to other weights than those in {checkpoint.name}/ and is "
        "left out; delete it and run routing-moe ablate again"
    )


def ablation_data(run: Path, routes: Routes, number: Mapping[str, int]) -> dict | None:
    """Returns the ablation results of a run, or None if there are none.

    number: {task: its index among all tasks of the page}. Raises InputError for a file that cannot be read.
    """
    folder = run / FOLDER
    tables = {name: _read(folder / name) for name in (TASKS, FEATURES, SETS)}
    if all(table is None for table in tables.values()):
        return None
    job = _job(run)
    part, limit = str(job.get("part")), job.get("max_examples")
    examples = f", {limit} examples of each" if limit else ""
    note = (
        f"Scores of checkpoint {job.get('checkpoint_name')} before minus after ablation, {part} files of the "
        f"{job.get('predict_split')} tasks{examples}."
    )
    try:
        data = _singles(tables[TASKS], routes, number)
        features = _features(tables[FEATURES], routes)
        sets = _sets(tables[SETS], number)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{folder}: its tables do not fit this run ({in_brief(error)}); "
            "write them again with routing-moe ablate"
        ) from None
    if features and (draws := int(tables[FEATURES]["draws"].max())):
        note += (
            f" Features: p is the share of {number_drawn(tables[FEATURES])} random sets (of equal weight in "
            "its tasks), the feature's own included, whose drop is at least as large: "
            f"{1 / (1 + draws):.3f} or more, not corrected for the number of features."
        )
    return {"note": note, "part": part, **data, "features": features, "sets": sets}


def _job(run: Path) -> dict:
    path = run / FOLDER / JOB_FILE
    return load_json_object(path, "the settings of the ablation") if path.is_file() else {}


def _read(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    return read_table(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])


def _singles(table: pd.DataFrame | None, routes: Routes, number: Mapping[str, int]) -> dict:
    """Returns drops by column (one expert of one layer) and task; None for experts that were not ablated."""
    if table is None:
        return {"tasks": [], "drops": []}
    tasks = [task for task in dict.fromkeys(table["task"]) if task in number]
    wide = table.set_index(["layer", "expert", "task"])["drop"]
    drops = [
        [rounded(wide.get((layer, expert, task))) for task in tasks]
        for layer in routes.layers
        for expert in range(routes.experts)
    ]
    return {"tasks": [number[task] for task in tasks], "drops": drops}


def _features(table: pd.DataFrame | None, routes: Routes) -> list[dict]:
    """Each feature's experts, and the drops of groups of tasks without them and without random experts."""
    if table is None:
        return []
    rounded_columns = ["drop", "random_mean", "random_std", "draws", "p", "weight", "random_weight"]
    rows = []
    for (feature, experts), groups in table.groupby(["feature", "experts"], sort=False):
        cells = [
            [group, int(tasks), *map(rounded, numbers)]
            for group, tasks, *numbers in groups[["group", "tasks", *rounded_columns]].itertuples(index=False)
        ]
        places = [[routes.layers.index(layer), expert] for layer, expert in places_of(experts)]
        rows.append({"feature": feature, "experts": places, "groups": cells})
    return rows


def _sets(table: pd.DataFrame | None, number: Mapping[str, int]) -> list[list]:
    """Returns [[name, mean drop, [[task, drop], ...] worst first], ...] of the sets named by the user."""
    if table is None:
        return []
    sets = []
    for name, rows in table[table["task"].isin(number)].groupby("experts", sort=False):
        worst = rows.nlargest(WORST, "drop")
        tasks = [[number[row.task], rounded(row.drop)] for row in worst.itertuples()]
        sets.append([name, rounded(rows["drop"].mean()), tasks])
    return sets
