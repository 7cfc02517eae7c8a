"""What variants of the conflict study reach: agreement with skills, shares of the oracle's advantage.

    routing-moe study conflict-shares models/compare_conflict/conflict1_16skills
    routing-moe study conflict-shares LEVEL ... --output_file docs/results/conflict_shares.csv
    routing-moe study conflict-shares LEVEL --baseline refined

A level is a folder of the study with comparison_runs.csv. The table of runs has the mean test score of the train tasks;
clusters of tasks with equal routes and their adjusted mutual information with the skills (ami); the mean score of
the unseen tasks and the share of them that is routed right (right), along the route of lowest loss and along the
nearest cluster (_nearest). The table of means has a row per variant: n, the number of seeds that it and the variants that
it is compared with have in common; means over these, and the lowest ami. difference, ami_difference: the means of
(variant - baseline), paired by seed, with their 95% t intervals over seeds. If the level has runs of dense_flops, which
is dense with the FLOPs of refined, and of oracle, flops_difference: that of (variant - dense_flops); share: the latter
divided by that of (oracle - dense_flops), so that 0 is the dense model and 1 the true routes, with Fieller's 95% interval
of a ratio of paired means (Fieller 1954). It is empty if the t interval of (oracle - dense_flops) contains 0, or with
one seed; both are empty without these runs. Each seed has a gym and an untrained model of its own.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from routing_moe.config.flags import REQUIRED
from routing_moe.studies.analysis import ANALYSIS, Analysis, run_analysis, t_interval
from routing_moe.studies.conflict_routes import COLUMNS as OF_ROUTES
from routing_moe.studies.conflict_routes import routes_of_run

OF_SHARES = ("dense_flops", "oracle")
INTERVALS = ("difference", "ami_difference", "flops_difference", "share")
COLUMNS = (
    "score",
    "ami_lowest",
    *OF_ROUTES,
    *(name + end for name in INTERVALS for end in ("", "_low", "_high")),
)


@dataclass(frozen=True, kw_only=True)
class Shares(Analysis):
    program = "routing-moe study conflict-shares"

    # fmt: off
    levels: tuple[Path, ...] = ANALYSIS(REQUIRED, "folders with comparison_runs.csv", positional=True)
    baseline: str = ANALYSIS("dense", "variant that differences are from")
    # fmt: on


def run(settings: Shares) -> None:
    tables = {level.name: runs_of(level, settings.baseline) for level in settings.levels}
    runs = pd.concat([table.assign(place=name) for name, table in tables.items()])
    means = pd.concat(
        [means_of(table, settings.baseline).assign(place=name) for name, table in tables.items()]
    )
    settings.write(runs[["place", *runs.columns[:-1]]], means[["place", "variant", "n", *COLUMNS]])


def runs_of(level: Path, baseline: str) -> pd.DataFrame:
    """Returns variant, seed, score and the columns of `routes_of_run` of the runs in comparison_runs.csv.

    Raises InputError without the file, or without a run of the baseline.
    """
    path = level / "comparison_runs.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist; compare_conflict.sh writes it")
    runs = pd.read_csv(path)
    if baseline not in (known := set(runs["variant"])):
        raise InputError(
            f"--baseline {baseline}: {path} has no run of it, only of {', '.join(sorted(known))}"
        )
    runs = runs[runs["category"] == "all"].reset_index(drop=True)
    routes = [routes_of_run(level / run.variant / run.run) for run in runs.itertuples()]
    scores = runs[["variant", "seed", "mean"]].rename(columns={"mean": "score"})
    return pd.concat([scores, pd.DataFrame(routes)], axis=1)


def means_of(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Returns the rows of a level, without `place`. runs: of `runs_of`."""
    by_seed = runs.pivot(index="variant", columns="seed", values=["score", "ami"])
    scores, amis = by_seed["score"], by_seed["ami"]
    has_shares, rows = set(OF_SHARES) <= set(scores.index), []
    for variant in runs["variant"].drop_duplicates():
        compared = [variant, baseline, *(OF_SHARES if has_shares else ())]
        common = scores.loc[compared].dropna(axis=1)
        own_n, baseline_n, *of_shares = common.to_numpy()
        own = runs[(runs["variant"] == variant) & runs["seed"].isin(common.columns)]
        own_ami_n, baseline_ami_n = amis.loc[[variant, baseline], common.columns].to_numpy()
        intervals = {
            "difference": t_interval(own_n - baseline_n),
            "ami_difference": t_interval(own_ami_n - baseline_ami_n),
        }
        if has_shares:
            flops_n, oracle_n = of_shares
            intervals["flops_difference"] = t_interval(own_n - flops_n)
            intervals["share"] = fieller_interval(own_n - flops_n, oracle_n - flops_n)
        row = {"variant": variant, "n": len(own_n), "ami_lowest": own["ami"].min()}
        row |= own[["score", *OF_ROUTES]].mean().to_dict()
        for name, values in intervals.items():
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
        rows.append(row)
    return pd.DataFrame(rows, columns=["variant", "n", *COLUMNS])


def fieller_interval(above_n: np.ndarray, below_n: np.ndarray) -> tuple[float, float, float]:
    """Returns mean(above) / mean(below) and Fieller's 95% interval of this ratio, for paired values.

    NaN unless the t interval of mean(below) excludes 0; only then is Fieller's set an interval around it.
    """
    from scipy.stats import t

    _, low, high = t_interval(below_n)
    if not (low > 0 or high < 0):
        return math.nan, math.nan, math.nan
    n = len(above_n)
    above, below = above_n.mean(), below_n.mean()
    (aa, ab), (_, bb) = t.ppf(0.975, n - 1) ** 2 * np.cov(above_n, below_n) / n
    # The ratios r with (above - r below)^2 <= t^2 var(above - r below): between the roots of a quadratic.
    middle, scale = above * below - ab, below**2 - bb
    half = math.sqrt(max(0.0, middle**2 - scale * (above**2 - aa)))
    return float(above / below), float((middle - half) / scale), float((middle + half) / scale)


def main(argv: list[str] | None = None) -> int:
    return run_analysis(run, Shares, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
