"""What each ingredient of gradient routing adds, on conflict gyms: do clusters find the true skills?

    python benchmarks/conflict_ingredients.py models/compare_conflict/dense_runs/conflict1_16skills_seed*
    python benchmarks/conflict_ingredients.py RUN ... --output_file docs/results/conflict_ingredients.csv

A run is a dense run on a conflict gym with kept checkpoints (--save_period), as those of
compare_conflict.sh. The recipe is: gradients by the token embeddings at the checkpoints of the second half
of the run, centred, cosines, average linkage. Each row of the table changes one ingredient of it. Columns:
ami, adjusted mutual information of the clusters and the skills, with the number of skills given; ami_auto
and clusters, with the number by the silhouette; unseen, share of the unseen tasks whose nearest cluster
(of the given number) has mostly tasks of their skill. Empty: unseen without centring, since the nearest
cluster is found in centred vectors; ami_auto and clusters of another linkage. The file has a row per run;
means over runs are beside it (_means.csv). Measures no time. Prints one JSON line; README.md explains it.
"""

import argparse
import math
import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_mutual_info_score
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measuring
from dataloader.encoding import TextFormat, encode
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import load_split
from routing_moe.checkpoints.find import find_mixture
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.io.run_folder import load_run_settings
from routing_moe.model.route_clusters import (
    best_count,
    centred_cosine,
    centred_directions,
    cluster_labels,
    nearest_cluster,
)
from task.task_emb.fisher_information import bart_log_likelihood, fisher_batches
from task.task_emb.mean_gradient import PATTERNS, chosen_parameters, mean_gradient, projected

ROWS = (4, 8, 12, 24)  # numbers of rows that gradients are also computed from


@dataclass(frozen=True)
class Settings:
    runs: list[str]
    output_file: str
    device: str = "cpu"


class DenseRun:
    """The gradients of all tasks at the checkpoints of a dense run."""

    def __init__(self, folder: Path):
        self.folder = folder
        settings = load_run_settings(folder)
        gym = Gym(settings["train_dir"])
        split = load_split(gym.folder / "split.json")
        skills = load_json_object(gym.folder / "skill_routes.json", "the skills of a conflict gym")
        self.gym, self.train, self.unseen = gym, list(split.train), list(split.test)
        self.skill_N = np.array([skills[task] for task in self.train])
        self.skill_of_unseen = np.array([skills[task] for task in self.unseen])
        self.hides_names, self.seed = settings["hide_task_names"], settings["seed"]
        lengths = settings["max_input_length"], settings["max_output_length"]
        self.text_format = TextFormat(*lengths, hide_task_names=self.hides_names)
        found = sorted(folder.glob("*-steps/model.safetensors"), key=lambda path: steps_of(path.parent))
        if not found:
            raise SystemExit(f"{folder} keeps no checkpoints; train it with --save_period")
        self.steps = [steps_of(path.parent) for path in found]

    @cached_property
    def second_half(self) -> list[int]:
        return [step for step in self.steps if 2 * step >= self.steps[-1]]

    def compute(self) -> None:
        """Computes {(step, rows): {parameter: gradients (N + U, n)}}; rows None: all of them."""
        self.found = {}
        for step in tqdm(self.steps, desc=str(self.folder), unit="checkpoint"):
            saved = find_mixture(self.folder, f"{step}-steps", "run")
            model = saved.load().eval().requires_grad_(False)
            model.set_attn_implementation("eager")
            tokenizer = load_tokenizer(saved.checkpoint, model.config.vocab_size)
            for rows in (None, *ROWS) if step in self.second_half else (None,):
                own = [self._gradient(model, tokenizer, task, rows) for task in (*self.train, *self.unseen)]
                self.found[step, rows] = {
                    name: np.stack([gradient[name] for gradient in own]) for name in own[0]
                }

    def _gradient(self, model, tokenizer, task: str, rows: int | None) -> dict[str, np.ndarray]:
        examples = self.gym.pool([task], "train", "first")[:rows]
        batches = fisher_batches(encode(examples, tokenizer, self.text_format, {task: 0}), model, 0, 1)
        found = mean_gradient(bart_log_likelihood(model), chosen_parameters(model, "all"), batches)
        return {name: gradient.flatten().numpy() for name, gradient in found.items()}

    def vectors(self, weights="embeddings", steps=None, rows=None, few=None) -> np.ndarray:
        """Returns vectors (N + U, D). rows, few: rows of train and of unseen tasks; None: all."""
        N, blocks = len(self.train), []
        for step in self.second_half if steps is None else steps:
            for name, gradients in self.found[step, rows].items():
                if re.match(PATTERNS[weights], name):
                    blocks.append(np.concatenate([gradients[:N], self.found[step, few][name][N:]]))
        return np.concatenate(blocks, axis=1)


def steps_of(folder: Path) -> int:
    return int(folder.name.removesuffix("-steps"))


def agreement(run: DenseRun, vectors_MD: np.ndarray, cluster=cluster_labels, centred=True) -> dict:
    """Returns ami, ami_auto, clusters and unseen of vectors (N + U, D). cluster: (cosines, K) -> labels.

    NaN: ami_auto and clusters of another `cluster`, since the silhouette is that of average linkage; unseen
    of vectors that are not centred, since the nearest cluster is found in centred ones.
    """
    N, K = len(run.train), len(set(run.skill_N))
    own_ND = vectors_MD[:N]
    cosine_NN = centred_cosine(own_ND)
    if not centred:
        directions_ND = centred_directions(own_ND, np.zeros(own_ND.shape[1]))
        cosine_NN = np.clip(directions_ND @ directions_ND.T, -1, 1)
    labels_N = cluster(cosine_NN, K)
    found = {"ami": adjusted_mutual_info_score(run.skill_N, labels_N)}
    found |= dict.fromkeys(("ami_auto", "clusters", "unseen"), math.nan)
    if cluster is cluster_labels:
        auto, _ = best_count(cosine_NN)
        labels_auto_N = cluster_labels(cosine_NN, auto)
        found |= {"ami_auto": adjusted_mutual_info_score(run.skill_N, labels_auto_N), "clusters": auto}
    if centred:
        found["unseen"] = share_of_unseen(run, vectors_MD, labels_N)
    return found


def share_of_unseen(run: DenseRun, vectors_MD: np.ndarray, labels_N: np.ndarray) -> float:
    """Returns the share of the unseen tasks whose nearest cluster has mostly tasks of their skill."""
    N = len(labels_N)
    most = {label: np.bincount(run.skill_N[labels_N == label]).argmax() for label in set(labels_N.tolist())}
    nearest = [most[nearest_cluster(vector_D, vectors_MD[:N], labels_N).label] for vector_D in vectors_MD[N:]]
    return float(np.mean(np.array(nearest) == run.skill_of_unseen))


def linkage(kind: str):
    def labels(cosine_NN: np.ndarray, count: int) -> np.ndarray:
        if kind == "k-means":  # of the vectors' coordinates: all components of the cosines
            values, directions_NN = np.linalg.eigh(cosine_NN)
            points_NN = directions_NN * np.sqrt(np.maximum(values, 0))
            return KMeans(count, n_init=10, random_state=0).fit_predict(points_NN)
        made = AgglomerativeClustering(count, metric="precomputed", linkage=kind)
        return made.fit_predict(1 - cosine_NN)

    return labels


def ingredients(run: DenseRun) -> dict[tuple[str, str], dict]:
    """Returns {(ingredient, value): agreement}; the first is the recipe."""
    last = run.steps[-1]
    rows = {("recipe", ""): agreement(run, run.vectors())}
    for weights in PATTERNS:
        rows["weights", weights] = agreement(run, run.vectors(weights))
    for step in run.steps:
        rows["one checkpoint, at step", str(step)] = agreement(run, run.vectors(steps=[step]))
    first = [step for step in run.steps if 2 * step < last]
    if first:
        rows["checkpoints", "first half"] = agreement(run, run.vectors(steps=first))
    rows["checkpoints", "all"] = agreement(run, run.vectors(steps=run.steps))
    rows["centring", "none"] = agreement(run, run.vectors(), centred=False)
    for kind in ("complete", "single", "k-means"):
        rows["clusters by", kind] = agreement(run, run.vectors(), linkage(kind))
    for n in (12, 24):
        rows["rows of a train task", str(n)] = agreement(run, run.vectors(rows=n))
    for n in (4, 8):
        rows["rows of an unseen task", str(n)] = agreement(run, run.vectors(few=n))
    for D in (64, 256, 1024):
        rows["projection of a checkpoint", str(D)] = agreement(run, projection(run, D))
    return rows


def projection(run: DenseRun, D: int) -> np.ndarray:
    import torch

    blocks = []
    for step in run.second_half:
        rows = torch.from_numpy(run.vectors(steps=[step]))
        made = [projected([row], D, torch.Generator().manual_seed(42)) for row in rows]
        blocks.append(torch.stack(made).numpy())
    return np.concatenate(blocks, axis=1)


def mean_table(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per names and changed ingredient: n, means over the runs, and the lowest ami."""
    changed = (table["ingredient"] + ": " + table["value"]).str.removesuffix(": ")
    grouped = table.assign(changed=changed).groupby(["names", "changed"], sort=False)
    means = grouped[["ami", "ami_auto", "clusters", "unseen"]].mean()
    means.insert(0, "n", grouped.size())
    means.insert(2, "ami_lowest", grouped["ami"].min())
    return means.reset_index()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="dense runs on conflict gyms, with kept checkpoints"
    )
    parser.add_argument("--output_file", type=Path, help="CSV file to write the table to")
    args = parser.parse_args(argv)
    load = os.getloadavg()[0]
    rows = []
    for run in [DenseRun(folder) for folder in args.runs]:
        run.compute()
        names = "hidden" if run.hides_names else "shown"
        for (ingredient, value), found in ingredients(run).items():
            rows.append({"names": names, "ingredient": ingredient, "value": value, "seed": run.seed, **found})
    table = pd.DataFrame(rows)
    means = mean_table(table)
    measuring.write_tables(table, means, args.output_file)
    variants = {f"{row.names}_{row.changed}": {"n": row.n, "ami": row.ami} for row in means.itertuples()}
    settings = Settings([str(folder) for folder in args.runs], str(args.output_file or ""))
    measuring.print_report("conflict_ingredients", settings, load, variants=variants, ratios={})


if __name__ == "__main__":
    main()
