"""Measures of routes and their tables: overlap of tasks, entropy, load of experts, nearest tasks.

Routes are arrays (N, L, E) whose rows sum to 1. Entropies and information are shares of log E.
N tasks, L layers, E experts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import entr

from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.analysis.saved_routes import History, SavedRoutes
from routing_moe.model.route_clusters import average_linkage

ALL = "all"  # in place of a layer: the mean over layers


def overlap(values_NLE: np.ndarray) -> np.ndarray:
    """Returns overlaps of routes of tasks (N, N), 0 to 1: sum_e min(a_e, b_e), averaged over layers.

    For one-hot routes it is the share of layers in which both use the same expert; 1 - overlap is the mean
    total variation distance.
    """
    shared_NN = np.zeros((len(values_NLE), len(values_NLE)))
    for layer in range(values_NLE.shape[1]):  # one at a time bounds the memory
        shared_NN += np.minimum(values_NLE[:, None, layer], values_NLE[None, :, layer]).sum(axis=-1)
    return np.minimum(shared_NN / values_NLE.shape[1], 1.0)  # rounding may add up to more


def shift(before_NLE: np.ndarray, after_NLE: np.ndarray) -> np.ndarray:
    """Returns the share of the weight that each task moved to other experts in each layer (N, L), 0 to 1."""
    return 0.5 * np.abs(after_NLE - before_NLE).sum(axis=-1)


def entropy(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the entropy of routes by task and layer (N, L) as a share of log E; 0 if one-hot or E = 1."""
    experts = values_NLE.shape[-1]
    return entr(values_NLE).sum(axis=-1) / np.log(experts) if experts > 1 else np.zeros(values_NLE.shape[:2])


def load(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the load of each expert (L, E): its mean weight over tasks; 1/E everywhere if balanced."""
    return values_NLE.mean(axis=0)


def load_entropy(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the entropy of each layer's load (L,) as a share of log E: 1 is balanced, 0 one expert."""
    return entropy(load(values_NLE)[None])[0]


def information(values_NLE: np.ndarray) -> np.ndarray:
    """Returns the mutual information of task and expert in each layer (L,), as a share of log E.

    It is the entropy of the load minus the mean entropy of the routes; 0 if all tasks have the same route.
    """
    return load_entropy(values_NLE) - entropy(values_NLE).mean(axis=0)


def cluster_tasks(similarity_NN: np.ndarray, tasks: Sequence[str], ontology: Ontology) -> np.ndarray:
    """Returns `average_linkage` of the tasks, which does not depend on the order in which they are given.

    The order of the leaves is optimal; ties are broken by the ontology's order. Leaf n is row n of
    `similarity_NN`. Raises ValueError for fewer than two tasks and for values that are not finite.
    """
    row_of = {task: row for row, task in enumerate(tasks)}
    rows = np.array([row_of[task] for task in ontology.order(tasks)])
    tree = average_linkage(similarity_NN[np.ix_(rows, rows)], optimal_ordering=True)
    is_leaf = tree[:, :2] < len(rows)
    tree[:, :2][is_leaf] = rows[tree[:, :2][is_leaf].astype(int)]
    return tree


# ---- tables


def layer_measures(layers: Sequence[str], values_NLE: np.ndarray) -> pd.DataFrame:
    """Returns a row per layer: entropy (mean over tasks), load_entropy, information, largest_load."""
    measures = {
        "layer": layers,
        "entropy": entropy(values_NLE).mean(axis=0),
        "load_entropy": load_entropy(values_NLE),
        "information": information(values_NLE),
        "largest_load": load(values_NLE).max(axis=1),
    }
    return pd.DataFrame(measures)


def layer_table(routes: SavedRoutes) -> pd.DataFrame:
    """Returns `layer_measures` with the load of each expert, load_0, ..."""
    loads = {f"load_{expert}": loads_L for expert, loads_L in enumerate(load(routes.values_NLE).T)}
    return layer_measures(routes.layers, routes.values_NLE).assign(**loads)


def summary(routes: Sequence[SavedRoutes]) -> pd.DataFrame:
    """Returns a row per run: means over its layers."""
    rows = {}
    for run in routes:
        table = layer_table(run)
        rows[run.name] = {
            "entropy of routes / log E": table["entropy"].mean(),
            "entropy of load / log E": table["load_entropy"].mean(),
            "information / log E": table["information"].mean(),
            "largest load": table["largest_load"].max(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run (means over layers)")


def dynamics_table(history: History) -> pd.DataFrame:
    """Returns a row per step and layer, and for the mean over layers ("all").

    Columns: step, those of `layer_measures`, distance_to_final, distance_to_previous: share of the weight on
    other experts than at the last step or at the previous one (NaN for the first), mean over tasks.
    """
    values_SNLE, tables = history.values_SNLE, []
    for index, (step, values_NLE) in enumerate(zip(history.steps, values_SNLE, strict=True)):
        before_NLE = values_SNLE[index - 1] if index else np.full_like(values_NLE, np.nan)
        table = layer_measures(history.layers, values_NLE).assign(
            distance_to_final=shift(values_NLE, values_SNLE[-1]).mean(axis=0),
            distance_to_previous=shift(before_NLE, values_NLE).mean(axis=0),
        )
        table.loc[len(table)] = {"layer": ALL} | table.drop(columns="layer").mean().to_dict()
        table.insert(0, "step", step)
        tables.append(table)
    measures = ["entropy", "load_entropy", "largest_load", "information"]
    columns = ["step", "layer", *measures, "distance_to_final", "distance_to_previous"]
    return pd.concat(tables, ignore_index=True)[columns]


def neighbour_table(
    routes: SavedRoutes, alike_NN: np.ndarray, ontology: Ontology, count: int
) -> pd.DataFrame:
    """Returns a row for each task and each of the `count` most similar tasks; ties keep the order of tasks.

    alike_NN: overlap of each pair of routes. same_category: 1 or 0, empty if a category is unknown.
    """
    order_NN = np.argsort(-np.round(alike_NN, 9), axis=1, kind="stable")
    rows = []
    for n, task in enumerate(routes.tasks):
        kind, others_N = ontology.category(task), order_NN[n][order_NN[n] != n]
        for rank, other in enumerate(others_N[:count], start=1):
            other_kind = ontology.category(routes.tasks[other])
            same = "" if UNCATEGORISED in (kind, other_kind) else int(kind[0] == other_kind[0])
            rows.append((task, kind[0], rank, routes.tasks[other], other_kind[0], alike_NN[n, other], same))
    columns = ["task", "category", "rank", "neighbour", "neighbour_category", "overlap", "same_category"]
    return pd.DataFrame(rows, columns=columns)
