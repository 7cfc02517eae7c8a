"""How well the routes of compared runs agree with kinds of tasks, such as the hidden skills of a gym.

table = recovery_of_runs(runs, kinds=["skill"], steps={"found/seed1": "best"})
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import Faults, InputError, did_you_mean
from routing_moe.analysis.features import Features
from routing_moe.analysis.recovery import recovery_table
from routing_moe.analysis.runs import read_runs
from routing_moe.model.configuration import RoutingBartConfig
from routing_moe.results.compared_runs import Run
from routing_moe.results.markdown import markdown_table, mean_and_std

MEASURES = {"ami": "AMI", "mantel_r": "Mantel r"}
COLUMNS = ("variant", "run", "seed", "kind", "tasks", "labels", "clusters", *MEASURES)


def recovery_of_runs(
    runs: Sequence[Run], kinds: Sequence[str], steps: Mapping[str, str | int]
) -> pd.DataFrame:
    """Returns a row per run and kind, with COLUMNS: `recovery_table` of the routes of its train tasks.

    kinds: the kinds of features to compare with, such as "skill" for the columns "skill:..." of the gym's
    skills.csv. steps: {run: step of its routes, "best" or "last"}. NaN where all tasks have the same route:
    one expert, average or random routes. Raises InputError for a kind that a run's gym does not have.
    """
    faults, rows = Faults(), []
    for run in runs:
        for row in faults.of(_recovery, run.folder, kinds, str(steps[str(run)])) or []:
            rows.append(dict(variant=run.variant, run=run.name, seed=run.seed) | row)
    if faults:
        raise InputError(dict.fromkeys(faults))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _recovery(run_folder: Path, kinds: Sequence[str], step: str) -> list[dict]:
    config = RoutingBartConfig.load(run_folder / "best")
    if not config.routes_by_task:
        return [{"kind": kind} for kind in kinds]
    (explained,) = read_runs([run_folder], step)
    table = recovery_table(explained.routes, of_kinds(explained.features, kinds), permutations=0)
    if (explained.routes.values_NLE == explained.routes.values_NLE[:1]).all():
        table = table.assign(ami=np.nan, mantel_r=np.nan)
    return table[[*COLUMNS[3:]]].to_dict("records")


def of_kinds(features: Features, kinds: Sequence[str]) -> Features:
    """Returns the features of these kinds. Raises InputError for an unknown kind."""
    known = features.kinds
    if unknown := [kind for kind in kinds if kind not in known]:
        raise InputError(
            f"--recovery {unknown[0]}: no such kind of features{did_you_mean(unknown[0], known)} (there are "
            f"{', '.join(known)})"
        )
    columns = [column for kind in kinds for column in known[kind]]
    names = tuple(features.names[column] for column in columns)
    return Features(features.tasks, names, features.values_NF[:, columns], features.described)


def mean_recovery_markdown(table: pd.DataFrame) -> str:
    """Returns means of `recovery_of_runs` over the runs of each variant as Markdown, with an explanation."""
    rows = {}
    for variant, runs in table.groupby("variant", sort=False):
        rows[variant] = {"n": str(runs.groupby("kind").size().max())}
        for kind, values in runs.groupby("kind", sort=False):
            for measure, shown in MEASURES.items():
                cell = mean_and_std(values[measure].mean(), values[measure].std())
                rows[variant][f"{kind}: {shown}"] = cell
    lines = [
        "Agreement of routes with kinds of train tasks: mean ± sample std over n runs. AMI: adjusted mutual",
        "information of the kinds and as many clusters of routes. Mantel r: correlation of the distances of",
        "routes with those of features. Both are 0 by chance, 1 if they agree; -: all routes are equal.",
    ]
    return "\n".join([*lines, "", markdown_table(rows, "variant")])
