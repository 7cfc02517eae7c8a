"""The results of `routing-moe ablate` for a run, as data of the report page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dataloader.checksums import sha256
from dataloader.errors import InputError, in_brief
from dataloader.jsonfile import load_json_object
from routing_moe.analysis.ablation.expert_sets import TASKS
from routing_moe.analysis.saved_routes import Routes, run_name
from routing_moe.io.csv_files import read_table
from routing_moe.io.job_folder import JOB_FILE
from routing_moe.report.curves import rounded

FOLDER = Path("analysis") / "ablation"  # in the run folder


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
    """Returns the ablation results of a run, or None if there are none of tasks of the page.

    number: {task: its index among all tasks of the page}. Raises InputError for a file that cannot be read.
    """
    folder = run / FOLDER
    if not (folder / TASKS).is_file():
        return None
    texts = dict.fromkeys(("layer", "task", "category"), str)  # in which "NA" is a name
    table = read_table(folder / TASKS, dtype=texts, keep_default_na=False, na_values=[""])
    job = _job(run)
    part, limit = str(job.get("part")), job.get("max_examples")
    examples = f", {limit} examples of each" if limit else ""
    note = (
        f"Scores of checkpoint {job.get('checkpoint_name')} before minus after ablation, {part} files of the "
        f"{job.get('predict_split')} tasks{examples}."
    )
    try:
        drops = _drops(table, routes, number)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{folder}: its {TASKS} does not fit this run ({in_brief(error)}); "
            "write it again with routing-moe ablate"
        ) from None
    return {"note": note, "part": part, **drops} if drops["tasks"] else None


def _job(run: Path) -> dict:
    path = run / FOLDER / JOB_FILE
    return load_json_object(path, "the settings of the ablation") if path.is_file() else {}


def _drops(table: pd.DataFrame, routes: Routes, number: Mapping[str, int]) -> dict:
    """Returns drops by column (one expert of one layer) and task; None for experts that were not ablated."""
    tasks = [task for task in dict.fromkeys(table["task"]) if task in number]
    wide = table.set_index(["layer", "expert", "task"])["drop"]
    drops = [
        [rounded(wide.get((layer, expert, task))) for task in tasks]
        for layer in routes.layers
        for expert in range(routes.experts)
    ]
    return {"tasks": [number[task] for task in tasks], "drops": drops}
