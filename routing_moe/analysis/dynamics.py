"""Routes over training: entropy, load and change at every evaluation, as a table.

    table = dynamics_table(load_history("models/moe"))
    plot_dynamics(table, "dynamics.pdf")

Entropies and information are shares of log E. N tasks, L layers, E experts, S steps.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from routing_moe.analysis import route_metrics
from routing_moe.analysis.saved_routes import History

ALL = "all"  # in place of a layer: the mean over layers


def dynamics_table(history: History) -> pd.DataFrame:
    """Returns a row per step and layer, and for the mean over layers ("all").

    Columns: step, layer; entropy (mean over tasks), load_entropy, largest_load, information: see
    `route_metrics`; distance_to_final, distance_to_previous: share of the weight on other experts than at the
    last step or at the previous one (NaN for the first), mean over tasks.
    """
    values_SNLE = history.values_SNLE
    tables = []
    for index, step in enumerate(history.steps):
        values_NLE = values_SNLE[index]
        before_NLE = values_SNLE[index - 1] if index else np.full_like(values_NLE, np.nan)
        table = pd.DataFrame(
            {
                "entropy": route_metrics.entropy(values_NLE).mean(axis=0),
                "load_entropy": route_metrics.load_entropy(values_NLE),
                "largest_load": route_metrics.load(values_NLE).max(axis=1),
                "information": route_metrics.information(values_NLE),
                "distance_to_final": route_metrics.shift(values_NLE, values_SNLE[-1]).mean(axis=0),
                "distance_to_previous": route_metrics.shift(before_NLE, values_NLE).mean(axis=0),
            }
        )
        table.loc[len(table)] = table.mean()
        table.insert(0, "step", step)
        table.insert(1, "layer", [*history.layers, ALL])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
