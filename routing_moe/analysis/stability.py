"""Did two runs learn the same routes? Experts have no names, so they are matched first, layer by layer.

    agreed = stability(one, other)
    agreed.overlap, agreed.chance, agreed.p, agreed.table

The matching of a layer's experts is the one that makes the routes of all tasks overlap most (Kuhn 1955).
N tasks, L layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from dataloader.errors import InputError, in_short
from routing_moe.analysis.permutations import ROUNDING, permutation_test
from routing_moe.analysis.saved_routes import Routes

PERMUTATIONS = 1000
FEWEST_TASKS = 3


@dataclass(frozen=True, eq=False)
class Stability:
    """Agreement of two runs' routes.

    overlap: share of a task's route that both runs have in common after matching, mean over tasks and layers.
    chance: the same with the tasks of one run permuted and matched again, mean over the permutations.
    p: (1 + permutations with as large an overlap) / (1 + permutations).
    adjusted: 0 at chance, 1 for equal routes; NaN where chance is 1.
    table: layer, overlap, chance, p, matching (the first run's experts to the second's: "0→2 1→0 2→1").
    """

    tasks: int
    overlap: float
    chance: float
    p: float
    permutations: int
    table: pd.DataFrame

    @property
    def adjusted(self) -> float:
        return (self.overlap - self.chance) / (1 - self.chance) if self.chance < 1 - ROUNDING else np.nan


def stability(one: Routes, other: Routes, permutations: int = PERMUTATIONS, seed: int = 0) -> Stability:
    """Returns agreement of two runs on common tasks. Raises InputError if they cannot be compared."""
    if one.layers != other.layers:
        raise InputError(
            f"{one.name} has experts in {in_short(list(one.layers))}, {other.name} in "
            f"{in_short(list(other.layers))}; only runs with the same layers can be matched"
        )
    tasks = [task for task in one.tasks if task in set(other.tasks)]
    if len(tasks) < FEWEST_TASKS:
        raise InputError(
            f"{one.name} and {other.name} have {len(tasks)} tasks in common; {FEWEST_TASKS} are needed"
        )
    a_NLE, b_NLE = one.of(tasks).values_NLE, other.of(tasks).values_NLE

    def overlaps(orders_PN: np.ndarray) -> np.ndarray:
        """Of each order of the other run's tasks: the overlap of each layer, then their mean."""
        layers = range(len(one.layers))
        by_layer_PL = np.array([
            [match(a_NLE[:, layer], b_NLE[order_N, layer])[1] for layer in layers] for order_N in orders_PN
        ])  # fmt: skip
        return np.column_stack([by_layer_PL, by_layer_PL.mean(axis=1)])

    test = permutation_test(overlaps, len(tasks), permutations, seed)
    pairs = [match(a_NLE[:, layer], b_NLE[:, layer])[0] for layer in range(len(one.layers))]
    table = pd.DataFrame(
        dict(
            layer=one.layers,
            overlap=test.observed[:-1],
            chance=test.chance[:-1],
            p=test.p[:-1],
            matching=[" ".join(f"{a}→{b}" for a, b in of_layer) for of_layer in pairs],
        )
    )
    overlap, p, chance = (float(values[-1]) for values in test)
    return Stability(len(tasks), overlap, chance, p, permutations, table)


def match(a_NE: np.ndarray, b_NE: np.ndarray) -> tuple[list[tuple[int, int]], float]:
    """([(expert of a, expert of b), ...], overlap) of a layer, for the matching with the largest overlap.

    The numbers of experts may differ; unmatched experts add nothing to the overlap.
    """
    shared_EE = np.minimum(a_NE[:, :, None], b_NE[:, None, :]).sum(axis=0)
    rows, columns = linear_sum_assignment(shared_EE, maximize=True)
    pairs = [(int(a), int(b)) for a, b in zip(rows, columns, strict=True)]
    return pairs, float(shared_EE[rows, columns].sum() / len(a_NE))
