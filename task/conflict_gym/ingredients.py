"""What each ingredient of gradient routing adds, on conflict gyms: do clusters find the true skills?

    routing-moe study gradient-ingredients models/compare_conflict/dense_runs/conflict1_16skills_seed*
    routing-moe study gradient-ingredients RUN ... --output_file docs/results/conflict_ingredients.csv

A run is a dense run on a conflict gym with kept checkpoints (--save_period), as those of
compare_conflict.sh. The recipe is: gradients by the token embeddings at the checkpoints of the second half
of the run, centred, cosines, average linkage. Each row of the table changes one ingredient of it; "minus
shuffled answers" is --minus_shuffled 1 of the gradients, by several weights. Columns:
ami, adjusted mutual information of the clusters and the skills, with the number of skills given; ami_auto
and clusters, with the number by the silhouette; unseen, share of the unseen tasks whose nearest cluster
(of the given number) has mostly tasks of their skill. Empty: unseen without centring, since the nearest
cluster is found in centred vectors; ami_auto and clusters of another linkage. The file has a row per run;
means over runs are beside it (_means.csv).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError
from routing_moe.cli.console import run_command
from routing_moe.config.flags import REQUIRED
from routing_moe.studies.analysis import ANALYSIS, Analysis


@dataclass(frozen=True, kw_only=True)
class Ingredients(Analysis):
    program = "routing-moe study gradient-ingredients"

    runs: tuple[Path, ...] = ANALYSIS(
        REQUIRED, "dense runs on conflict gyms, with kept checkpoints", positional=True
    )


def run(settings: Ingredients) -> None:
    if problems := settings.problems():
        raise InputError(problems)
    from task.conflict_gym.gradient_clusters import (
        DenseRun,
        ingredients,
    )  # imports torch, which takes seconds

    rows = []
    for dense in [DenseRun(folder) for folder in settings.runs]:
        dense.compute()
        names = "hidden" if dense.hides_names else "shown"
        for (ingredient, value), numbers in ingredients(dense).items():
            rows.append(
                {"names": names, "ingredient": ingredient, "value": value, "seed": dense.seed, **numbers}
            )
    table = pd.DataFrame(rows)
    settings.write(table, mean_table(table))


def mean_table(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per names and changed ingredient: n, means over the runs, and the lowest ami."""
    changed = (table["ingredient"] + ": " + table["value"]).str.removesuffix(": ")
    grouped = table.assign(changed=changed).groupby(["names", "changed"], sort=False)
    means = grouped[["ami", "ami_auto", "clusters", "unseen"]].mean()
    means.insert(0, "n", grouped.size())
    means.insert(2, "ami_lowest", grouped["ami"].min())
    return means.reset_index()


def main(argv: list[str] | None = None) -> int:
    return run_command(run, Ingredients, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
