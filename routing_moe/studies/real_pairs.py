"""Contrasts on pairs of tasks with kept and with permuted labels, and shares of the oracle's advantage.

    routing-moe study label-pairs models/real_gym/labels/tables/comparison_tasks.csv \\
        --relabelled models/real_gym/labels/gym --baseline multitask --output_file pairs.csv

`comparison_tasks.csv` is a file of routing-moe compare-runs, on a gym of routing-moe conflict-gym relabel. One row per
measure and arm, means over the tasks of all pairs: n (seeds in common with the baseline and the oracle), value,
difference from the baseline with its interval and p (results/statistics.py), detectable (smallest detectable effect),
and share: the difference divided by that of the oracle, with Fieller's interval over seeds. It is empty if the t
interval of the oracle's difference contains 0, or with one seed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, did_you_mean
from routing_moe.config.choices import MEASURES
from routing_moe.config.flags import REQUIRED
from routing_moe.io.csv_files import read_table
from routing_moe.results.contrasts import paired_by_seed
from routing_moe.results.statistics import mean_interval
from routing_moe.studies.analysis import ANALYSIS, Analysis, run_analysis
from routing_moe.studies.conflict_shares import fieller_interval
from routing_moe.studies.permuted_twins import label_pairs


@dataclass(frozen=True, kw_only=True)
class LabelPairs(Analysis):
    program = "routing-moe study label-pairs"

    tasks: Path = ANALYSIS(REQUIRED, "comparison_tasks.csv", positional=True)
    relabelled: Path = ANALYSIS(REQUIRED, "gym that the runs were trained on")
    baseline: str = ANALYSIS("multitask", "arm that differences are relative to")
    oracle: str = ANALYSIS("oracle", "arm with the true routes")


def run(settings: LabelPairs) -> None:
    scores = read_table(settings.tasks, dtype={"task": str, "variant": str})
    known = list(dict.fromkeys(scores["variant"]))
    for flag in ("baseline", "oracle"):
        if (name := getattr(settings, flag)) not in known:
            raise InputError(f"--{flag} {name}: {settings.tasks} has no such arm{did_you_mean(name, known)}")
    pairs = label_pairs(settings.relabelled)
    own = scores[scores["task"].isin([*pairs["kept"], *pairs["permuted"]])]
    if own.empty:
        raise InputError(f"{settings.tasks} has no task of a pair of {settings.relabelled}")
    measures = [name for name in MEASURES if name in own and own[name].notna().any()]
    # Means over the samples of a task, where runs were scored on several.
    own = own.groupby(["variant", "seed", "task"], sort=False)[measures].mean().reset_index()
    rows = [row for measure in measures for row in rows_of(own, measure, settings)]
    settings.write(pd.DataFrame(rows))


def rows_of(scores: pd.DataFrame, measure: str, settings: LabelPairs) -> list[dict]:
    """Returns the rows of a measure. scores: a row per run and task of a pair."""
    best_TS = paired_by_seed(scores, (settings.oracle, settings.baseline), measure)
    rows = []
    for name, own in scores.groupby("variant", sort=False):
        above_TS = paired_by_seed(scores, (name, settings.baseline), measure)
        seeds = above_TS.columns.intersection(best_TS.columns)
        tasks = above_TS.index.intersection(best_TS.index)
        above_TS = above_TS.loc[tasks, seeds]
        found = mean_interval(above_TS.to_numpy().T)
        value = own[own["seed"].isin(seeds) & own["task"].isin(tasks)][measure].mean()
        row = dict(measure=measure, variant=name, n=len(seeds), tasks=len(tasks), value=value)
        row |= dict(difference=above_TS.to_numpy().mean(), low=found.low, high=found.high, p=found.p)
        row |= dict(detectable=found.detectable, interval=found.over)
        share = (float("nan"),) * 3
        if len(seeds) > 1:
            means = (table.mean().to_numpy() for table in (above_TS, best_TS.loc[tasks, seeds]))
            share = fieller_interval(*means)
        rows.append(row | dict(zip(("share", "share_low", "share_high"), share, strict=True)))
    return rows


def main(argv: list[str] | None = None) -> int:
    return run_analysis(run, LabelPairs, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
