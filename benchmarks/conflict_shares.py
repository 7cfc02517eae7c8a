"""The share of the oracle's advantage that each variant reaches on conflict gyms.

    python benchmarks/conflict_shares.py models/compare_conflict/conflict1_16skills
    python benchmarks/conflict_shares.py PLACE ... --output_file docs/results/conflict_shares.csv

A place is a folder of compare_conflict.sh with comparison_runs.csv. Scores are means of test scores over the
train tasks. n: the number of seeds that the variant, dense and oracle have in common; other columns use these
seeds only. difference: the mean of (variant - dense), paired by seed, with its 95% t interval over seeds.
share: this mean divided by that of (oracle - dense), so that 0 is the dense model of the same active size and
1 the true routes, with Fieller's 95% interval of a ratio of paired means (Fieller 1954). It is empty if the t
interval of (oracle - dense) contains 0, or with one seed. Each seed has a gym and an untrained model of its
own. Measures no time. Prints one JSON line.
"""

import argparse
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring

COLUMNS = ("difference", "difference_low", "difference_high", "share", "share_low", "share_high")


@dataclass(frozen=True)
class Settings:
    places: list[str]
    output_file: str
    device: str = "cpu"


def scores_of(place: Path) -> pd.DataFrame:
    """Returns the scores of the runs in comparison_runs.csv, variants x seeds, in the order of the file.

    SystemExit without the file, or without a run of dense or oracle.
    """
    path = place / "comparison_runs.csv"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; compare_conflict.sh writes it")
    runs = pd.read_csv(path)
    missing = [name for name in ("dense", "oracle") if name not in set(runs["variant"])]
    if missing:
        raise SystemExit(
            f"{path} has no run of {' and '.join(missing)}; shares are relative to dense and oracle"
        )
    scores = runs[runs["category"] == "all"].pivot(index="variant", columns="seed", values="mean")
    return scores.loc[runs["variant"].drop_duplicates()]


def shares(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns the table's rows of a place, without `place`. scores: variants x seeds."""
    rows = []
    for variant in scores.index:
        common = scores.loc[[variant, "dense", "oracle"]].dropna(axis=1).to_numpy()
        differences_n, advantages_n = common[0] - common[1], common[2] - common[1]
        row = {"variant": variant, "n": common.shape[1]}
        row |= zip(COLUMNS[:3], t_interval(differences_n), strict=True)
        rows.append(row | dict(zip(COLUMNS[3:], fieller_interval(differences_n, advantages_n), strict=True)))
    return pd.DataFrame(rows)


def t_interval(values_n: np.ndarray) -> tuple[float, float, float]:
    """Returns the mean and its 95% t interval, NaN where there are too few values."""
    n = len(values_n)
    if n < 2:
        return (float(values_n[0]) if n else math.nan), math.nan, math.nan
    mean, half = values_n.mean(), t.ppf(0.975, n - 1) * values_n.std(ddof=1) / math.sqrt(n)
    return float(mean), float(mean - half), float(mean + half)


def fieller_interval(above_n: np.ndarray, below_n: np.ndarray) -> tuple[float, float, float]:
    """Returns mean(above) / mean(below) and Fieller's 95% interval of this ratio, for paired values.

    NaN unless the t interval of mean(below) excludes 0; only then is Fieller's set an interval around it.
    """
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


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs="+", type=Path, help="folders with comparison_runs.csv")
    parser.add_argument("--output_file", type=Path, help="CSV file to write the table to")
    args = parser.parse_args(argv)
    load = os.getloadavg()[0]
    table = pd.concat([shares(scores_of(place)).assign(place=place.name) for place in args.places])
    table = table[["place", "variant", "n", *COLUMNS]].round(4)
    if args.output_file:
        args.output_file.write_text(table.to_csv(index=False))
    print(table.to_string(index=False), file=sys.stderr)
    variants = {}
    for place, variant, n, *values in table.itertuples(index=False):
        known = {name: value for name, value in zip(COLUMNS, values, strict=True) if not math.isnan(value)}
        variants[f"{place}/{variant}"] = {"n": n} | known
    settings = Settings([str(place) for place in args.places], str(args.output_file or ""))
    measuring.print_report("conflict_shares", settings, load, variants=variants, ratios={})


if __name__ == "__main__":
    main()
