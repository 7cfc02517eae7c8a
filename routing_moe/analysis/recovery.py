"""Do tasks with similar routes or vectors have similar features? Mantel's test, and clusters against labels.

    recovery_table(1 - overlap(routes.values_NLE), features)

N tasks, P permutations.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_mutual_info_score

from dataloader.errors import InputError, did_you_mean
from routing_moe.analysis.correlation import standardised
from routing_moe.analysis.features import Features
from routing_moe.analysis.route_metrics import overlap
from routing_moe.analysis.runs import read_runs
from routing_moe.model.configuration import Mixture
from routing_moe.model.route_clusters import average_linkage
from routing_moe.results.markdown import markdown_table, shown_p
from routing_moe.results.runs import Run
from routing_moe.results.statistics import PERMUTATIONS, holm, permutation_test

FEWEST_TASKS = 4  # three have six orders in all
AT_ONCE = 4_000_000  # numbers of permuted distances in memory
ROUNDED_DIGITS = 9
COLUMNS_OF_RUNS = ("variant", "run", "seed", "kind", "tasks", "labels", "clusters", "ami", "mantel_r")
SHOWN = dict(labels="labels", ami="AMI", mantel_r="Mantel r", mantel_p="p", mantel_p_holm="p (Holm)")
COLUMNS = ["kind", "tasks", "labels", "clusters", "ami", "mantel_r", "mantel_p"]


def recovery_table(
    apart_NN: np.ndarray, features: Features, permutations: int = PERMUTATIONS
) -> pd.DataFrame:
    """Returns a row for each kind of features: labels, adjusted mutual information, Mantel's r and p.

    apart_NN: distances of the tasks by routes or vectors. Only tasks with all features of the kind known are
    used. A task's label is the set of features that are 1; the tasks are clustered (average linkage) into as
    many clusters as there are labels (see `clusters` for ties). Distances of features are Jaccard's. NaN if
    all tasks have the same label or are equally far apart, for ami also if all labels differ. ami: 0 by
    chance, 1 if clusters and labels agree (Vinh et al. 2010). mantel_p_holm: corrected for all kinds.
    """
    rows = []
    for kind, columns in features.kinds.items():
        known_N = np.isfinite(features.values_NF[:, columns]).all(axis=1)
        if known_N.sum() < FEWEST_TASKS:
            continue
        known_NN, values_NF = apart_NN[np.ix_(known_N, known_N)], features.values_NF[known_N][:, columns]
        distances = pdist(values_NF.astype(bool), "jaccard")
        r, p = mantel_test(known_NN, squareform(distances), permutations)
        row = dict(kind=kind, tasks=len(values_NF), mantel_r=r, mantel_p=p)
        labels = ["".join(str(int(value)) for value in row_F) for row_F in values_NF]
        row["labels"] = count = len(set(labels))
        if 1 < count < len(labels) and not np.isnan(r):
            clusters_N = clusters(known_NN, count)
            row["clusters"] = len(set(clusters_N))
            row["ami"] = adjusted_mutual_info_score(labels, clusters_N)
        rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(mantel_p_holm=holm(table["mantel_p"]))


def mantel_test(
    one_NN: np.ndarray, other_NN: np.ndarray, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """Returns (r, p) of two distance matrices of the same tasks, of which one is permuted.

    r: Pearson's correlation of the distances. p: one-sided (similar tasks are similar in the other matrix).
    Both are NaN where all distances of a matrix are equal, p without permutations. Source: Mantel (1967).
    """
    rows, columns = np.triu_indices(len(one_NN), 1)
    values_X2 = standardised(np.stack([one_NN[rows, columns], other_NN[rows, columns]], axis=1))
    r = float(values_X2[:, 0] @ values_X2[:, 1])
    if not permutations or np.isnan(r):
        return r, np.nan
    full_NN, other_X = squareform(values_X2[:, 0]), values_X2[:, 1]

    def correlations(orders_PN: np.ndarray) -> np.ndarray:
        return full_NN[orders_PN[..., rows], orders_PN[..., columns]] @ other_X

    batch = max(1, AT_ONCE // len(rows))
    return r, float(permutation_test(correlations, np.arange(len(one_NN)), permutations, batch).pvalue)


def clusters(apart_NN: np.ndarray, count: int) -> np.ndarray:
    """Numbers (N,) of `count` clusters by average linkage.

    Where distances tie, as those of one-hot routes do, of the next larger number that no tie divides: routes
    that are all at distance 1 are separate clusters, not one. Equal routes are always in one cluster.
    """
    tree = average_linkage(1 - apart_NN)
    heights = tree[:, 2] = np.round(tree[:, 2], ROUNDED_DIGITS)
    left = len(apart_NN) - np.searchsorted(heights, heights, side="right")  # clusters after the merges there
    return fcluster(tree, max(heights[left >= count], default=0.0), "distance")


def recovery_markdown(table: pd.DataFrame, name: str, of: str = "routes") -> str:
    """Returns the rows of `recovery_table`, with a column `name`, as Markdown, with an explanation."""
    if table.empty:
        return f"No kind of features is known for enough tasks to compare it with {of}."
    texts = {column: table[column].map(shown_p) for column in ("mantel_p", "mantel_p_holm")}
    table = table.assign(**texts).set_index("kind")[[name, "tasks", *SHOWN]]
    return (
        f"Do tasks with similar {of} have similar features? AMI: adjusted mutual information of clusters of "
        f"{of} and labels (0 by chance, 1 best); Mantel: correlation of distances by {of} and features, p "
        f"by permutations of the tasks.\n\n{markdown_table(table.rename(columns=SHOWN))}"
    )


def recovery_of_runs(
    runs: Sequence[Run], kinds: Sequence[str], task_ontology: Path | None = None
) -> pd.DataFrame:
    """Returns a row per run and kind (COLUMNS_OF_RUNS): `recovery_table` of the best routes of train tasks.

    kinds: the kinds of features to compare with, such as "skill" for the columns "skill:..." of the gym's
    skills.csv. task_ontology: default: that of each run. NaN where all tasks have the same route: one expert,
    average or random routes, and for a kind that is known for too few tasks. Raises InputError for a kind
    that a run's gym does not have.
    """
    kinds, tables = list(dict.fromkeys(kinds)), []
    for run in runs:
        table = pd.DataFrame({"kind": kinds})
        if Mixture.load(run.folder / "best").routes_by_task:
            (explained,) = read_runs([run.folder], task_ontology=task_ontology)
            check_kinds(kinds, explained.features)
            apart_NN = 1 - overlap(explained.routes.values_NLE)
            found = recovery_table(apart_NN, explained.features, permutations=0)
            table = table.merge(found, how="left", on="kind")
        tables.append(table.assign(variant=run.variant, run=run.name, seed=run.seed))
    return pd.concat(tables, ignore_index=True).reindex(columns=COLUMNS_OF_RUNS)


def check_kinds(kinds: Sequence[str], features: Features) -> None:
    """Raises InputError for a kind that the features do not have."""
    known = features.kinds
    if unknown := [kind for kind in kinds if kind not in known]:
        have = f"{did_you_mean(unknown[0], known)} (have {', '.join(known)})"
        lost = "; the gym of a run is not found from this folder, or has no kinds of tasks"
        raise InputError(f"--recovery {unknown[0]}: no such kind of features{have if known else lost}")
