"""The permutation test behind correlations, recovery, stability and agreement."""

import numpy as np
import pytest

from routing_moe.analysis.permutations import permutation_test

VALUES_N = np.array([1.0, 2.0, 4.0, 8.0])


def products(orders_PN):
    """Sums of products with permuted values, and a column that is not defined."""
    sums_P = (VALUES_N[orders_PN] * VALUES_N).sum(axis=1)
    return np.column_stack([sums_P, np.full(len(orders_PN), np.nan)])


def test_p_and_chance_are_those_of_all_orders():
    observed, p, chance = permutation_test(products, 4, 10_000)
    assert observed[0] == 85  # the largest: only the order itself of 24 is as large
    assert p[0] == pytest.approx(1 / 24, abs=0.01)
    assert chance[0] == pytest.approx(15 * 15 / 4, abs=0.5)
    assert np.isnan([observed[1], p[1], chance[1]]).all()
    assert np.isnan(permutation_test(products, 4, 0)[1]).all()


def test_results_depend_on_the_seed_but_not_on_the_batches():
    _, p, chance = permutation_test(products, 4, 50, seed=3)
    _, p_of_batches, chance_of_batches = permutation_test(products, 4, 50, seed=3, at_once=7)
    assert p_of_batches[0] == p[0]
    assert chance_of_batches[0] == pytest.approx(chance[0])
    assert permutation_test(products, 4, 50, seed=4)[2][0] != chance[0]


def test_equal_values_despite_rounding_count_as_large():
    noise = iter(np.linspace(1e-12, -1e-12, 100))
    _, p, _ = permutation_test(lambda orders_PN: np.array([next(noise) for _ in orders_PN]), 3, 99)
    assert p == 1.0
