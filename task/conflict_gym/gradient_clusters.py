"""Clusters of the gradients of dense runs on conflict gyms: how well they agree with the true skills.

M: N train tasks, then U unseen tasks.
"""

import math
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_mutual_info_score
from tqdm import tqdm

from dataloader.encoding import TextFormat, encode
from dataloader.errors import InputError
from dataloader.gym import Gym
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import load_split
from routing_moe.checkpoints.find import find_mixture
from routing_moe.checkpoints.tokenizer_files import load_tokenizer
from routing_moe.io.run_folder import settings_of_run
from routing_moe.model.route_clusters import (
    best_clusters,
    centred_cosine,
    centred_directions,
    cluster_labels,
    nearest_cluster,
    possible_counts,
)
from task.task_emb.fisher_information import bart_log_likelihood, fisher_batches
from task.task_emb.mean_gradient import PATTERNS, chosen_parameters, mean_gradient, projected, shuffled

ROWS = (4, 8, 12, 24)  # numbers of rows that gradients are also computed from
SHUFFLED = "shuffled"  # instead of a number: all rows, with the answers of others


class DenseRun:
    """The gradients of all tasks at the checkpoints of a dense run."""

    def __init__(self, folder: Path):
        self.folder = folder
        settings = settings_of_run(folder)
        gym = Gym(settings["train_dir"])
        split = load_split(gym.folder / "split.json")
        skills = load_json_object(gym.folder / "skill_routes.json", "the skills of a conflict gym")
        self.gym, self.train, self.unseen = gym, list(split.train), list(split.test)
        self.skill_N = np.array([skills[task] for task in self.train])
        self.skill_of_unseen = np.array([skills[task] for task in self.unseen])
        self.hides_names, self.seed = settings["hide_task_names"], settings["seed"]
        lengths = settings["max_input_length"], settings["max_output_length"]
        self.text_format = TextFormat(*lengths, hide_task_names=self.hides_names)
        self.steps = sorted(steps_of(path.parent) for path in folder.glob("*-steps/model.safetensors"))
        if not self.steps:
            raise InputError(f"{folder} keeps no checkpoints; train it with --save_period")

    @cached_property
    def second_half(self) -> list[int]:
        return [step for step in self.steps if 2 * step >= self.steps[-1]]

    def compute(self) -> None:
        """Computes {(step, rows): {parameter: gradients (N + U, n)}}; rows: a number, None or SHUFFLED."""
        self.gradients = {}
        for step in tqdm(self.steps, desc=str(self.folder), unit="checkpoint"):
            saved = find_mixture(self.folder, f"{step}-steps", "run")
            model = saved.load().eval().requires_grad_(False)
            model.set_attn_implementation("eager")
            tokenizer = load_tokenizer(saved.checkpoint, model.config.vocab_size)
            for rows in (None, *ROWS, SHUFFLED) if step in self.second_half else (None,):
                tasks = (*self.train, *self.unseen)
                of_tasks = [self._gradient(model, tokenizer, task, rows) for task in tasks]
                self.gradients[step, rows] = {
                    name: np.stack([gradient[name] for gradient in of_tasks]) for name in of_tasks[0]
                }

    def _gradient(self, model, tokenizer, task: str, rows: int | str | None) -> dict[str, np.ndarray]:
        examples = self.gym.pool([task], "train", "first")[: None if rows == SHUFFLED else rows]
        encoded = encode(examples, tokenizer, self.text_format, {task: 0})
        if rows == SHUFFLED:
            encoded = encoded.with_answers_of(shuffled(len(encoded), 1)[0])
        batches = fisher_batches(encoded, model, 0, 1)
        gradients = mean_gradient(bart_log_likelihood(model), chosen_parameters(model, "all"), batches)
        return {name: gradient.flatten().numpy() for name, gradient in gradients.items()}

    def vectors(
        self, weights="embeddings", steps=None, rows=None, few=None, minus_shuffled=False
    ) -> np.ndarray:
        """Returns vectors (N + U, D). rows, few: rows of train and of unseen tasks; None: all.

        minus_shuffled: of all rows, at steps of the second half.
        """
        N, blocks = len(self.train), []
        for step in self.second_half if steps is None else steps:
            for name, gradients in self.gradients[step, rows].items():
                if re.match(PATTERNS[weights], name):
                    block = np.concatenate([gradients[:N], self.gradients[step, few][name][N:]])
                    blocks.append(block - self.gradients[step, SHUFFLED][name] if minus_shuffled else block)
        return np.concatenate(blocks, axis=1)


def steps_of(folder: Path) -> int:
    return int(folder.name.removesuffix("-steps"))


def agreement(run: DenseRun, vectors_MD: np.ndarray, cluster=cluster_labels, centred=True) -> dict:
    """Returns ami, ami_auto, clusters and unseen of vectors (N + U, D). cluster: (cosines, K) -> labels.

    NaN: ami_auto and clusters of another `cluster`, since the silhouette is that of average linkage; unseen
    of vectors that are not centred, since the nearest cluster is found in centred ones.
    """
    N, K = len(run.train), len(set(run.skill_N))
    vectors_ND = vectors_MD[:N]
    cosine_NN = centred_cosine(vectors_ND)
    if not centred:
        directions_ND = centred_directions(vectors_ND, np.zeros(vectors_ND.shape[1]))
        cosine_NN = np.clip(directions_ND @ directions_ND.T, -1, 1)
    labels_N = cluster(cosine_NN, K)
    numbers = {"ami": adjusted_mutual_info_score(run.skill_N, labels_N)}
    numbers |= dict.fromkeys(("ami_auto", "clusters", "unseen"), math.nan)
    if cluster is cluster_labels:
        auto_N, _ = best_clusters(cosine_NN, possible_counts(N))
        numbers["ami_auto"] = adjusted_mutual_info_score(run.skill_N, auto_N)
        numbers["clusters"] = len(set(auto_N.tolist()))
    if centred:
        numbers["unseen"] = share_of_unseen(run, vectors_MD, labels_N)
    return numbers


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
        clustering = AgglomerativeClustering(count, metric="precomputed", linkage=kind)
        return clustering.fit_predict(1 - cosine_NN)

    return labels


def ingredients(run: DenseRun) -> dict[tuple[str, str], dict]:
    """Returns {(ingredient, value): agreement}; the first is the recipe."""
    last = run.steps[-1]
    rows = {("recipe", ""): agreement(run, run.vectors())}
    for weights in PATTERNS:
        rows["weights", weights] = agreement(run, run.vectors(weights))
    for weights in ("embeddings", "layers", "all"):
        vectors_MD = run.vectors(weights, minus_shuffled=True)
        rows["minus shuffled answers, weights", weights] = agreement(run, vectors_MD)
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
    blocks = []
    for step in run.second_half:
        rows = torch.from_numpy(run.vectors(steps=[step]))
        vectors = [projected([row], D, torch.Generator().manual_seed(42)) for row in rows]
        blocks.append(torch.stack(vectors).numpy())
    return np.concatenate(blocks, axis=1)
