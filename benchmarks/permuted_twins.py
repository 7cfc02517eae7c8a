"""Tasks with the same rows and permuted labels: are both answered, and do their routes differ?

    python benchmarks/permuted_twins.py models/relabelled_study/runs --relabelled data/relabelled \\
        --output_file docs/results/permuted_twins.csv

`runs` is a folder of `<variant>/<run>/`, trained on a gym that `python -m task.conflict_gym.relabel` wrote. A
pair is a classification task with its labels and its copy with permuted labels, both among the train tasks. One
row per variant, means over its runs and over pairs:

kept, permuted   test scores of the two. A model that cannot tell them apart gains on one what it loses on the
                 other.
constant         those of the most frequent train answer, mean of both
other_route      share of pairs whose routes differ in at least one layer, by the expert of the largest weight
distance         1 - overlap of their routes: the share of layers with another expert if routes are one-hot
distance_others  that of all pairs of train tasks that are not such a pair

The last three are empty for models with one expert. Measures no time. Prints one JSON line.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from dataloader.errors import InputError
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.saved_routes import Routes, load_routes
from routing_moe.results.compared_runs import find_runs, scores_per_task
from routing_moe.results.scores import ScoresFile

SCORES = ["kept", "permuted", "constant"]
ROUTES = ["other_route", "distance", "distance_others"]


@dataclass(frozen=True)
class Settings:
    runs: str
    relabelled: str
    device: str = "cpu"


def twins(relabelled: Path) -> pd.DataFrame:
    """Returns the pairs in relabelled.csv: columns source, kept, permuted (names of tasks).

    SystemExit without the file.
    """
    path = relabelled / "relabelled.csv"
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; python -m task.conflict_gym.relabel writes it")
    tasks = pd.read_csv(path).pivot(index="source", columns="labels", values="task")
    return tasks.dropna().reset_index()


def of_scores(scores: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, float]:
    """Returns SCORES and n_pairs. scores: a row per task of one run."""
    by_task = scores.set_index("task")
    kept, permuted = by_task.loc[pairs["kept"]], by_task.loc[pairs["permuted"]]
    constant = pd.concat([kept["constant"], permuted["constant"]]).mean()
    values = kept["performance"].mean(), permuted["performance"].mean(), constant
    return {"n_pairs": len(pairs)} | dict(zip(SCORES, values, strict=True))


def of_routes(routes: Routes, pairs: pd.DataFrame) -> dict[str, float]:
    """Returns ROUTES; the distance of other pairs is the mean over all of them."""
    apart_NN = 1 - overlap(routes.values_NLE)
    chosen_NL = routes.values_NLE.argmax(axis=-1)
    row = {task: n for n, task in enumerate(routes.tasks)}
    kept, permuted = [row[task] for task in pairs["kept"]], [row[task] for task in pairs["permuted"]]
    others_NN = np.triu(np.ones_like(apart_NN, dtype=bool), k=1)
    others_NN[kept, permuted] = others_NN[permuted, kept] = False
    differ = (chosen_NL[kept] != chosen_NL[permuted]).any(axis=-1)
    values = differ.mean(), apart_NN[kept, permuted].mean(), apart_NN[others_NN].mean()
    return dict(zip(ROUTES, map(float, values), strict=True))


def table_of(runs: Path, relabelled: Path) -> pd.DataFrame:
    """Returns the table of all finished runs. Raises InputError for files that cannot be read."""
    pairs, rows = twins(relabelled), []
    for run in find_runs(runs, ScoresFile("test")):
        if run.scores is None:
            continue
        scores, place = scores_per_task([run]), runs / run.variant / run.name
        trained = set(scores["task"])
        own = pairs[pairs["kept"].isin(trained) & pairs["permuted"].isin(trained)]
        row = {"variant": run.variant} | of_scores(scores, own)
        if (routes := load_routes(place)).experts > 1:
            row |= of_routes(routes, own)
        rows.append(row)
    table = pd.DataFrame(rows, columns=["variant", "n_pairs", *SCORES, *ROUTES])
    grouped = table.groupby("variant", sort=False)
    means = grouped.mean().reset_index().astype({"n_pairs": int})
    means.insert(1, "n", grouped.size().to_numpy())
    return means


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of <variant>/<run>/")
    parser.add_argument("--relabelled", type=Path, required=True, help="gym that the runs were trained on")
    parser.add_argument("--output_file", type=Path, help="CSV file to write the table to")
    args = parser.parse_args(argv)
    load = os.getloadavg()[0]
    try:
        table = table_of(args.runs, args.relabelled).round(4)
    except InputError as error:
        raise SystemExit("\n".join(f"error: {fault}" for fault in error.faults)) from None
    if args.output_file:
        args.output_file.write_text(table.to_csv(index=False))
    print(table.to_string(index=False), file=sys.stderr)
    variants = {
        variant: {name: value for name, value in row.items() if not pd.isna(value)}
        for variant, row in table.set_index("variant").to_dict("index").items()
    }
    settings = Settings(str(args.runs), str(args.relabelled))
    measuring.print_report("permuted_twins", settings, load, variants=variants, ratios={})


if __name__ == "__main__":
    main()
