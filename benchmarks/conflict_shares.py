"""The share of the oracle's advantage that each variant reaches on conflict gyms.

    python benchmarks/conflict_shares.py models/compare_conflict/conflict1_16skills
    python benchmarks/conflict_shares.py PLACE ... --output_file docs/results/conflict_shares.csv

A place is a folder of compare_conflict.sh with comparison_runs.csv. The share of a run is (its score -
that of dense) / (that of oracle - that of dense) with the same seed: 0 is the dense model of the same
active size, 1 is the true routes. Scores are means of test scores over the train tasks. low, high: 95% t
interval of the mean over seeds; each seed has a gym and an untrained model of its own. Measures no time.
Prints one JSON line.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring


@dataclass(frozen=True)
class Settings:
    places: list[str]
    output_file: str
    device: str = "cpu"


def shares(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns variant, n, share, low, high of the seeds that dense and oracle have, too.

    runs: comparison_runs.csv. low and high are NaN for one seed.
    """
    scores = runs[runs["category"] == "all"].pivot(index="variant", columns="seed", values="mean")
    dense, oracle = scores.loc["dense"], scores.loc["oracle"]
    rows = []
    for variant in runs["variant"].drop_duplicates():
        own = ((scores.loc[variant] - dense) / (oracle - dense)).dropna()
        half = t.ppf(0.975, len(own) - 1) * own.sem() if len(own) > 1 else float("nan")
        row = {"variant": variant, "n": len(own), "share": own.mean()}
        rows.append(row | {"low": own.mean() - half, "high": own.mean() + half})
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("places", nargs="+", type=Path, help="folders with comparison_runs.csv")
    parser.add_argument("--output_file", type=Path, help="CSV file to write the table to")
    args = parser.parse_args(argv)
    load = os.getloadavg()[0]
    tables = []
    for place in args.places:
        tables.append(shares(pd.read_csv(place / "comparison_runs.csv")).assign(place=place.name))
    table = pd.concat(tables)[["place", "variant", "n", "share", "low", "high"]].round(4)
    if args.output_file:
        args.output_file.write_text(table.to_csv(index=False))
    print(table.to_string(index=False), file=sys.stderr)
    variants = {f"{row.place}/{row.variant}": {"n": row.n, "share": row.share} for row in table.itertuples()}
    settings = Settings([str(place) for place in args.places], str(args.output_file or ""))
    measuring.print_report("conflict_shares", settings, load, variants=variants, ratios={})


if __name__ == "__main__":
    main()
