"""Tasks with the same rows and permuted labels: are their vectors similar, and do clusters separate them?

    routing-moe study twin-vectors models/real_gym/labels/vectors/* \\
        --relabelled models/real_gym/labels/gym --clusters clusters:auto:4-8 --output_file vectors.csv

The folders have vectors of the tasks of a gym of `routing-moe conflict-gym relabel`; a pair is a classification task with
its labels and its copy with permuted labels. One row per folder and part of its vectors:

cosine          mean over the pairs, of vectors minus the mean of all tasks (_low and _high: of the pairs)
cosine_others   mean over all other pairs of tasks
clusters, sizes, silhouette  of --clusters, a value of --task_routes
other_cluster   share of the pairs whose tasks are in different clusters
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dataloader.errors import InputError, in_short, problem_context
from routing_moe.cli.console import run_command
from routing_moe.config.flags import REQUIRED
from routing_moe.model.route_clusters import centred_cosine
from routing_moe.studies.analysis import ANALYSIS, Analysis
from routing_moe.studies.permuted_twins import label_pairs
from routing_moe.task_choice.given_routes import are_clusters, clusters_of
from routing_moe.task_choice.given_vectors import GivenVectors


@dataclass(frozen=True, kw_only=True)
class TwinVectors(Analysis):
    program = "routing-moe study twin-vectors"

    vectors: tuple[Path, ...] = ANALYSIS(REQUIRED, "folders of vectors", positional=True)
    relabelled: Path = ANALYSIS(REQUIRED, "gym that they are of")
    clusters: str = ANALYSIS("clusters:auto", "clusters:K, clusters:auto, or these with sizes (:MIN-MAX)")

    def problems(self) -> list[str]:
        wrong = not are_clusters(self.clusters) or self.clusters.startswith("random:")
        needed = f"--clusters is {self.clusters!r}; give clusters:K, clusters:auto or clusters:K:MIN-MAX"
        return super().problems() + [needed] * wrong


def run(settings: TwinVectors) -> None:
    if problems := settings.problems():
        raise InputError(problems)
    pairs = label_pairs(settings.relabelled)
    tasks = pd.read_csv(settings.relabelled / "relabelled.csv", keep_default_na=False)["task"].tolist()
    rows = [row for folder in settings.vectors for row in rows_of(folder, tasks, pairs, settings.clusters)]
    settings.write(pd.DataFrame(rows))


def rows_of(folder: Path, tasks: list[str], pairs: pd.DataFrame, clusters: str) -> list[dict]:
    """Returns the rows of a folder. tasks: all N of the gym; pairs: of `label_pairs`. Raises InputError."""
    given = GivenVectors.load(folder)
    if lacking := sorted({*tasks} - {*given.names}):
        raise InputError(f"{folder} has no vector for {in_short(lacking)}")
    vectors_ND = np.stack([given.by_name[task] for task in tasks])
    kept, permuted = ([tasks.index(task) for task in pairs[labels]] for labels in ("kept", "permuted"))
    is_other_NN = np.triu(np.ones((len(tasks), len(tasks)), dtype=bool), k=1)
    is_other_NN[kept, permuted] = is_other_NN[permuted, kept] = False
    rows = []
    for part, (first, end) in given.parts.items():
        cosine_NN = centred_cosine(vectors_ND[:, first:end])
        with problem_context("--clusters "):
            labels_N, found = clusters_of(clusters, vectors_ND[:, first:end])
        twins = cosine_NN[kept, permuted]
        row = dict(vectors=str(folder), part=part, cosine=twins.mean(), cosine_low=twins.min())
        row |= dict(cosine_high=twins.max(), cosine_others=cosine_NN[is_other_NN].mean())
        row |= {name: found[name] for name in ("clusters", "sizes", "silhouette")}
        rows.append(row | dict(other_cluster=(labels_N[kept] != labels_N[permuted]).mean()))
    return rows


def main(argv: list[str] | None = None) -> int:
    return run_command(run, TwinVectors, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
