"""One-sided permutation tests: how often is a statistic as large when the tasks of one side are permuted?"""

from collections.abc import Callable

import numpy as np

ROUNDING = 1e-9  # tolerance for equally large values


def permutation_test(
    statistic: Callable, n_tasks: int, permutations: int, seed: int = 0, at_once: int = 1000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (observed value, p, mean over permutations) of a statistic, arrays of its shape.

    statistic: a function of orders of tasks (P, N) that returns values (P, ...). p: (1 + permutations with as
    large a value) / (1 + permutations), see Phipson & Smyth (2010); NaN where the statistic is. Without
    permutations, p and the mean are NaN. at_once: P of one call, which bounds the memory; results do not
    depend on it.
    """
    observed = np.asarray(statistic(np.arange(n_tasks)[None])[0])
    if not permutations:
        return observed, np.full(observed.shape, np.nan), np.full(observed.shape, np.nan)
    count, total = np.zeros(observed.shape), np.zeros(observed.shape)
    generator = np.random.default_rng(seed)
    for start in range(0, permutations, at_once):
        orders_PN = np.tile(np.arange(n_tasks), (min(at_once, permutations - start), 1))
        values = statistic(generator.permuted(orders_PN, axis=1))
        count += (values >= observed - ROUNDING).sum(axis=0)
        total += values.sum(axis=0)
    p = np.where(np.isnan(observed), np.nan, (1 + count) / (1 + permutations))
    return observed, p, total / permutations
