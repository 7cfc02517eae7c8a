"""Tasks with the same rows and permuted labels: are both answered, and do their routes differ?

    routing-moe study permuted-twins models/relabelled_study/runs \\
        --relabelled data/relabelled --output_file twins.csv

`runs` is a folder of `<variant>/<run>/`, trained on a gym of `routing-moe conflict-gym relabel`. A pair is
a classification task with its labels and its copy with permuted labels, both among the train tasks. One row
per variant, means over pairs of means over its n runs:

kept, permuted   test scores of the two. A model that cannot tell them apart gains on one what it loses on the
                 other.
constant         those of the most frequent train answer, mean of both
difference       kept - permuted, with its 95% t interval over pairs (columns _low and _high)
other_route      share of pairs whose routes differ in at least one layer, by the expert of the largest weight
distance         1 - overlap of their routes: the share of layers with another expert if routes are one-hot
distance_others  that of all pairs of train tasks that are not such a pair

The last three are of the routes that scores were computed with, and empty if routes are not of tasks: with
one expert, average or random routes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from routing_moe.analysis.saved_routes import Routes, load_routes
from routing_moe.config.flags import REQUIRED
from routing_moe.results.compared_runs import Run, find_runs, scores_per_task
from routing_moe.results.scores import ScoresFile
from routing_moe.studies.analysis import ANALYSIS, Analysis, run_analysis, t_interval

DIFFERENCE = ("difference", "difference_low", "difference_high")
ROUTES = ("other_route", "distance", "distance_others")


@dataclass(frozen=True, kw_only=True)
class PermutedTwins(Analysis):
    program = "routing-moe study permuted-twins"

    runs: Path = ANALYSIS(REQUIRED, "folder of <variant>/<run>/", positional=True)
    relabelled: Path = ANALYSIS(REQUIRED, "gym that the runs were trained on")


def run(settings: PermutedTwins) -> None:
    """Writes a row per variant with finished runs. Raises InputError for files that cannot be read."""
    pairs, variants = label_pairs(settings.relabelled), {}
    for trained in find_runs(settings.runs, ScoresFile("test")):
        if trained.scores is not None:
            variants.setdefault(trained.variant, []).append(trained)
    rows = [{"variant": name} | row_of(settings.runs, runs, pairs) for name, runs in variants.items()]
    settings.write(pd.DataFrame(rows))


def label_pairs(relabelled: Path) -> pd.DataFrame:
    """Returns the pairs in relabelled.csv: columns kept, permuted (names of tasks).

    Raises InputError without the file, or without a pair.
    """
    path = relabelled / "relabelled.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist; routing-moe conflict-gym relabel writes it")
    tasks = pd.read_csv(path, keep_default_na=False).pivot(index="source", columns="labels", values="task")
    pairs = tasks.reindex(columns=["kept", "permuted"]).dropna()
    if pairs.empty:
        raise InputError(f"{path} has no task with kept and permuted labels; give --share to relabel")
    return pairs


def pair_scores(run: Run, pairs: pd.DataFrame) -> pd.DataFrame:
    """Returns kept, permuted and constant of the pairs that the run was trained on, by source."""
    scores = scores_per_task([run]).set_index("task")
    trained = pairs[pairs["kept"].isin(scores.index) & pairs["permuted"].isin(scores.index)]
    if trained.empty:
        raise InputError(f"{run}: no pair is among its train tasks")
    kept, permuted = (scores.loc[trained[labels]].set_index(trained.index) for labels in ("kept", "permuted"))
    constant = (kept["constant"] + permuted["constant"]) / 2
    return pd.DataFrame(
        {"kept": kept["performance"], "permuted": permuted["performance"], "constant": constant}
    )


def routes_of(folder: Path) -> Routes | None:
    """Returns the routes of the train tasks that scores were computed with; None if tasks have none."""
    from routing_moe.model.configuration import RoutingBartConfig  # imports torch, which takes seconds

    config = RoutingBartConfig.load(folder / "best")
    if not config.routes_by_task:
        return None
    return load_routes(folder, kind="chosen" if config.router_mode == "gumbel_softmax_st" else "soft")


def places(tasks: Sequence[str], pairs: pd.DataFrame) -> tuple[list[int], list[int], np.ndarray]:
    """Returns the places of the kept and of the permuted tasks, and a mask (N, N) of all other pairs."""
    kept, permuted = ([tasks.index(task) for task in pairs[name]] for name in ("kept", "permuted"))
    is_other_NN = np.triu(np.ones((len(tasks), len(tasks)), dtype=bool), k=1)
    is_other_NN[kept, permuted] = is_other_NN[permuted, kept] = False
    return kept, permuted, is_other_NN


def route_distances(routes: Routes, pairs: pd.DataFrame) -> dict[str, float]:
    """Returns ROUTES; the distance of other pairs is the mean over all of them."""
    from routing_moe.analysis.route_metrics import overlap  # imports scipy

    distance_NN = 1 - overlap(routes.values_NLE)
    kept, permuted, is_other_NN = places(routes.tasks, pairs)
    chosen_NL = routes.values_NLE.argmax(axis=-1)
    differ = (chosen_NL[kept] != chosen_NL[permuted]).any(axis=-1)
    values = differ.mean(), distance_NN[kept, permuted].mean(), distance_NN[is_other_NN].mean()
    return dict(zip(ROUTES, map(float, values), strict=True))


def row_of(folder: Path, runs: list[Run], pairs: pd.DataFrame) -> dict:
    """Returns the row of a variant, given its runs."""
    scores = pd.concat([pair_scores(run, pairs) for run in runs]).groupby(level=0).mean()
    row = {"n": len(runs), "pairs": len(scores)} | scores.mean().to_dict()
    row |= zip(DIFFERENCE, t_interval((scores["kept"] - scores["permuted"]).to_numpy()), strict=True)
    routes = [routes_of(folder / run.variant / run.name) for run in runs]
    distances = [route_distances(of_run, pairs.loc[scores.index]) for of_run in routes if of_run is not None]
    return row | (pd.DataFrame(distances).mean().to_dict() if distances else dict.fromkeys(ROUTES, np.nan))


def main(argv: list[str] | None = None) -> int:
    return run_analysis(run, PermutedTwins, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
