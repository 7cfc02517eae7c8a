"""The share of the oracle's advantage that each variant of the conflict study reaches.

    routing-moe study conflict-shares models/compare_conflict/conflict1_16skills
    routing-moe study conflict-shares LEVEL ... --output_file docs/results/conflict_shares.csv

A level is a folder of the study with comparison_runs.csv. Scores are means of test scores over the train
tasks. n: the number of seeds that the variant, dense and oracle have in common; other columns use these
seeds only. difference: the mean of (variant - dense), paired by seed, with its 95% t interval over seeds.
share: this mean divided by that of (oracle - dense), so that 0 is the dense model of the same active size and
1 the true routes, with Fieller's 95% interval of a ratio of paired means (Fieller 1954). It is empty if the t
interval of (oracle - dense) contains 0, or with one seed. Each seed has a gym and an untrained model of its
own.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from routing_moe.cli.console import run_command
from routing_moe.config.flags import REQUIRED
from routing_moe.studies.analysis import ANALYSIS, Analysis, t_interval

COLUMNS = ("difference", "difference_low", "difference_high", "share", "share_low", "share_high")


@dataclass(frozen=True, kw_only=True)
class Shares(Analysis):
    program = "routing-moe study conflict-shares"

    levels: tuple[Path, ...] = ANALYSIS(REQUIRED, "folders with comparison_runs.csv", positional=True)


def run(settings: Shares) -> None:
    if problems := settings.problems():
        raise InputError(problems)
    table = pd.concat([shares(scores_of(level)).assign(place=level.name) for level in settings.levels])
    settings.write(table[["place", "variant", "n", *COLUMNS]])


def scores_of(level: Path) -> pd.DataFrame:
    """Returns the scores of the runs in comparison_runs.csv, variants x seeds, in the order of the file.

    Raises InputError without the file, or without a run of dense or oracle.
    """
    path = level / "comparison_runs.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist; compare_conflict.sh writes it")
    runs = pd.read_csv(path)
    missing = [name for name in ("dense", "oracle") if name not in set(runs["variant"])]
    if missing:
        raise InputError(
            f"{path} has no run of {' and '.join(missing)}; shares are relative to dense and oracle"
        )
    scores = runs[runs["category"] == "all"].pivot(index="variant", columns="seed", values="mean")
    return scores.loc[runs["variant"].drop_duplicates()]


def shares(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of a level, without `place`. scores: variants x seeds."""
    rows = []
    for variant in scores.index:
        common = scores.loc[[variant, "dense", "oracle"]].dropna(axis=1).to_numpy()
        differences_n, advantages_n = common[0] - common[1], common[2] - common[1]
        row = {"variant": variant, "n": common.shape[1]}
        row |= zip(COLUMNS[:3], t_interval(differences_n), strict=True)
        rows.append(row | dict(zip(COLUMNS[3:], fieller_interval(differences_n, advantages_n), strict=True)))
    return pd.DataFrame(rows)


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
    return run_command(run, Shares, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
