"""Tables of routes: a row per layer, the nearest tasks, and changes between two routes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from dataloader.ontology import UNCATEGORISED, Ontology
from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import Routes


def layer_table(routes: Routes) -> pd.DataFrame:
    """A row per layer: entropy (mean over tasks), load_entropy, information, largest_load, load_0, ...

    Entropies and information are shares of log E.
    """
    loads_LE = route_metrics.load(routes.values_NLE)
    table = pd.DataFrame(
        dict(
            layer=routes.layers,
            entropy=route_metrics.entropy(routes.values_NLE).mean(axis=0),
            load_entropy=route_metrics.load_entropy(routes.values_NLE),
            information=route_metrics.information(routes.values_NLE),
            largest_load=loads_LE.max(axis=1),
        )
    )
    loads = {f"load_{expert}": loads_LE[:, expert] for expert in range(routes.experts)}
    return table.assign(**loads)


def neighbour_table(routes: Routes, alike_NN: np.ndarray, ontology: Ontology, count: int) -> pd.DataFrame:
    """Returns the `count` tasks with the most similar routes for each task; ties keep the order of tasks.

    alike_NN: overlap of each pair of routes. same_category: 1 or 0, empty if a category is unknown.
    """
    order_NN = np.argsort(-np.round(alike_NN, 9), axis=1, kind="stable")
    nearest_NK = [order_N[order_N != n][:count] for n, order_N in enumerate(order_NN)]
    table = neighbours(routes.tasks, nearest_NK, alike_NN, ontology)
    return table.rename(columns={"similarity": "overlap"}).drop(columns="same_subcategory")


def neighbours(
    tasks: Sequence[str], nearest_NK: Sequence, similarity_NN: np.ndarray, ontology: Ontology
) -> pd.DataFrame:
    """Returns a row for each task and each of its K nearest tasks, in their order.

    same_category, same_subcategory: 1 or 0, empty if one of the two tasks is not in the ontology.
    """
    rows = []
    for n, task in enumerate(tasks):
        kind = ontology.category(task)
        for rank, other in enumerate(nearest_NK[n], start=1):
            other_kind = ontology.category(tasks[other])
            same = (int(kind[0] == other_kind[0]), int(kind == other_kind))
            if UNCATEGORISED in (kind, other_kind):
                same = ("", "")
            rows.append((task, kind[0], rank, tasks[other], other_kind[0], similarity_NN[n, other], *same))
    columns = ["task", "category", "rank", "neighbour", "neighbour_category", "similarity"]
    return pd.DataFrame(rows, columns=[*columns, "same_category", "same_subcategory"])


def common_routes(after: Routes, before: Routes) -> tuple[Routes, Routes]:
    """Returns (before, after) for common tasks. Raises InputError if there are none or models differ."""
    tasks = [task for task in after.tasks if task in set(before.tasks)]
    if not tasks:
        raise InputError(f"{before.name} and {after.name} have no task in common")
    if (before.layers, before.experts) != (after.layers, after.experts):
        sizes = " and ".join(f"{len(r.layers)} layers x {r.experts} experts" for r in (before, after))
        raise InputError(f"{before.name} and {after.name} have {sizes} and cannot be compared")
    return before.of(tasks), after.of(tasks)


def change_table(before: Routes, after: Routes) -> pd.DataFrame:
    """A row per task and layer: shift (weight moved to other experts), heaviest_before, heaviest_after."""
    shift_NL = route_metrics.shift(before.values_NLE, after.values_NLE)
    was_NL, is_NL = (routes.values_NLE.argmax(axis=2) for routes in (before, after))
    rows = [
        (task, layer, shift_NL[n, row], was_NL[n, row], is_NL[n, row])
        for n, task in enumerate(before.tasks)
        for row, layer in enumerate(before.layers)
    ]
    return pd.DataFrame(rows, columns=["task", "layer", "shift", "heaviest_before", "heaviest_after"])


def summary(routes: Sequence[Routes]) -> pd.DataFrame:
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
