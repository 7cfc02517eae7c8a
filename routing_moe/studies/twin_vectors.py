"""Tasks with the same rows and permuted labels: are their vectors similar, and do clusters separate them?

    routing-moe study twin-vectors models/real_gym/labels/vectors/* \\
        --relabelled models/real_gym/labels/gym --clusters clusters:auto:4-8 --output_file vectors.csv

The folders have vectors of the train tasks of a gym of `routing-moe conflict-gym relabel`. A pair is a classification
task with its labels and its copy with permuted labels, both train tasks. One row per folder and part of its vectors:

pairs, tasks           their numbers
cosine                 mean over the pairs, of vectors minus the mean of all tasks (_low and _high: of the pairs)
cosine_others          mean over all other pairs of tasks
clusters, sizes        of --clusters, a value of --task_routes, with their silhouette
other_cluster          share of the pairs whose tasks are in different clusters
other_cluster_random   its expectation for random groups of these sizes
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError, in_short, problem_context
from dataloader.ontology import Ontology
from dataloader.task_splits import load_split
from routing_moe.config.flags import REQUIRED
from routing_moe.model.route_clusters import best_clusters, centred_cosine
from routing_moe.studies.analysis import ANALYSIS, Analysis, run_analysis
from routing_moe.studies.permuted_twins import label_pairs, places
from routing_moe.task_choice.given_routes import CLUSTERS, wanted_clusters
from routing_moe.task_choice.given_vectors import GivenVectors


@dataclass(frozen=True, kw_only=True)
class TwinVectors(Analysis):
    program = "routing-moe study twin-vectors"

    vectors: tuple[Path, ...] = ANALYSIS(REQUIRED, "folders of vectors", positional=True)
    relabelled: Path = ANALYSIS(REQUIRED, "gym that they are of")
    clusters: str = ANALYSIS("clusters:auto", "clusters:K, clusters:auto, or these with sizes (:MIN-MAX)")

    def problems(self) -> list[str]:
        wrong = not self.clusters.startswith(f"{CLUSTERS}:")
        needed = f"--clusters is {self.clusters!r}; give clusters:K, clusters:auto or clusters:K:MIN-MAX"
        return super().problems() + [needed] * wrong


def run(settings: TwinVectors) -> None:
    pairs = label_pairs(settings.relabelled)
    train = load_split(settings.relabelled / "split.json").train
    pairs = pairs[pairs.isin(train).all(axis=1)]
    if pairs.empty:
        raise InputError(f"{settings.relabelled}: no pair is among the train tasks of split.json")
    rows = [row for folder in settings.vectors for row in rows_of(folder, train, pairs, settings.clusters)]
    settings.write(pd.DataFrame(rows))


def rows_of(folder: Path, train: Sequence[str], pairs: pd.DataFrame, clusters: str) -> list[dict]:
    """Returns the rows of a folder. train: N tasks; pairs: of `label_pairs`. Raises InputError."""
    given = GivenVectors.load(folder)
    if lacking := sorted({*train} - {*given.names}):
        raise InputError(f"{folder} has no vector for {in_short(lacking)}")
    tasks = Ontology.load().order(train)  # as those of --task_routes, so that ties are cut alike
    vectors_ND = np.stack([given.by_name[task] for task in tasks])
    kept, permuted, is_other_NN = places(tasks, pairs)
    with problem_context("--clusters "):
        counts, limits = wanted_clusters(clusters, len(tasks))
    rows = []
    for part, (first, end) in given.parts.items():
        cosine_NN = centred_cosine(vectors_ND[:, first:end])
        labels_N, silhouette = best_clusters(cosine_NN, counts, limits)
        twins, sizes = cosine_NN[kept, permuted], np.bincount(labels_N)
        row = dict(vectors=str(folder), part=part, pairs=len(pairs), tasks=len(tasks), cosine=twins.mean())
        row |= dict(cosine_low=twins.min(), cosine_high=twins.max())
        row |= dict(cosine_others=cosine_NN[is_other_NN].mean())
        row |= dict(clusters=len(sizes), sizes=" ".join(map(str, sizes)), silhouette=silhouette)
        row |= dict(other_cluster=(labels_N[kept] != labels_N[permuted]).mean())
        together = (sizes * (sizes - 1)).sum() / (len(tasks) * (len(tasks) - 1))
        rows.append(row | dict(other_cluster_random=1 - together))
    return rows


def main(argv: list[str] | None = None) -> int:
    return run_analysis(run, TwinVectors, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
