"""Intervals of means and corrections for multiple tests: hand-computed values, and coverage."""

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from routing_moe.config import choices
from routing_moe.results.statistics import (
    AUTO,
    DESIGNS,
    design_of,
    detectable_effect,
    holm,
    mean_interval,
    permutation_test,
    t_of_mean,
)


def test_the_two_way_interval_equals_a_hand_computed_one():
    # Means of tasks 1, 3, 5, of seeds 2 and 4, of all 3; MS_tasks = 2 * 8 / 2 = 8, MS_seeds = 3 * 2 / 1 = 6.
    mean, error, df = t_of_mean([[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]], "seeds_and_tasks")
    assert mean == pytest.approx(3.0)
    assert error == pytest.approx((14 / 6) ** 0.5)
    assert df == pytest.approx(14**2 / (8**2 / 2 + 6**2 / 1))


@pytest.mark.parametrize(("design", "axis", "over"), [("seeds", 1, "seeds"), ("tasks", 0, "tasks")])
def test_with_tasks_or_seeds_as_fixed_the_interval_is_students_t(design, axis, over):
    values_ST = np.random.default_rng(0).normal(0.3, 1.0, (4, 9))
    found, known = mean_interval(values_ST, design), ttest_1samp(values_ST.mean(axis=axis), 0.0)
    ends = known.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((ends.low, ends.high, known.pvalue))
    assert found.over == over


def test_the_design_is_by_the_number_of_seeds():
    values_ST = np.random.default_rng(0).normal(0.3, 1.0, (5, 9))
    over = [mean_interval(values_ST[:seeds]).over for seeds in (1, 2, 4, 5)]
    assert over == ["tasks", "seeds", "seeds", "seeds x tasks"]
    assert mean_interval(values_ST[0]).over == "tasks"
    assert mean_interval(values_ST[0], "seeds").over == "only one seed"
    assert (AUTO, *DESIGNS) == choices.DESIGNS


def test_a_missing_value_leaves_no_interval_and_no_test():
    values_ST = np.random.default_rng(0).normal(0.3, 1.0, (4, 9))
    values_ST[1, 2] = np.nan
    found = mean_interval(values_ST)
    assert np.isnan([found.low, found.high, found.p, found.detectable]).all()
    assert found.over == "values are missing"


def test_the_detectable_effect_is_found_with_a_probability_of_80_percent():
    """By simulation; and as in textbooks: an effect of half a standard deviation needs 34 pairs."""
    assert detectable_effect(34**-0.5, 33) < 0.5 < detectable_effect(33**-0.5, 32)
    draw = np.random.default_rng(0)
    for n in (2, 3, 5, 8):
        effect = detectable_effect(n**-0.5, n - 1)
        found = ttest_1samp(draw.normal(effect, 1.0, (20_000, n)), 0.0, axis=1).pvalue < 0.05
        assert found.mean() == pytest.approx(0.8, abs=0.01)
    values_ST = draw.normal(0.0, 1.0, (6, 9))
    _, error, df = t_of_mean(values_ST, "seeds_and_tasks")
    assert mean_interval(values_ST).detectable == pytest.approx(detectable_effect(error, df))


def test_fewer_than_six_tasks_or_no_seed_give_a_reason_instead_of_an_interval():
    few = mean_interval(np.ones((3, 4)))
    assert np.isnan([few.low, few.high, few.p]).all()
    assert few.over == "too few tasks (4)"
    assert mean_interval(np.ones((0, 8))).over == "no common seed"
    assert mean_interval(np.arange(6.0)).over == "tasks"


def test_equal_values_have_an_interval_of_width_zero():
    same = mean_interval(np.full((3, 7), 0.1))
    assert (same.low, same.high, same.p) == pytest.approx((0.1, 0.1, 0.0))
    assert mean_interval(np.zeros((3, 7))).p == 1.0


# Coverage of normal and skewed effects, in the design for the number of seeds: the nominal 95% less 2 points.


def covered(size: tuple[int, int, int], design: str, effects: str, seed_std: float, draw) -> float:
    """Returns the share of intervals that cover the truth of a design. size: simulations, seeds, tasks."""
    drawn = {"normal": draw.normal, "skewed": lambda size: draw.exponential(size=size) - 1}[effects]
    n, seeds, tasks = size
    of_tasks, of_seeds = drawn(size=(n, 1, tasks)), seed_std * draw.normal(size=(n, seeds, 1))
    mean_N, error_N, df_N = t_of_mean(of_tasks + of_seeds + draw.normal(0.0, 0.7, size), design)
    truth = {"seeds": of_tasks, "tasks": of_seeds, "seeds_and_tasks": np.zeros((n, 1, 1))}[design]
    return (np.abs(mean_N - truth.mean(axis=(1, 2))) <= error_N * t.ppf(0.975, df_N)).mean()


@pytest.mark.parametrize(
    ("effects", "seeds", "tasks", "seed_std"),
    [("normal", 2, 14, 0.6), ("skewed", 3, 80, 0.3), ("skewed", 5, 14, 0.3), ("normal", 8, 80, 0.6)],
)
def test_intervals_have_the_documented_coverage(effects, seeds, tasks, seed_std):
    draw = np.random.default_rng([1, tasks, seeds])
    assert 0.93 < covered((5000, seeds, tasks), design_of(seeds), effects, seed_std, draw) < 0.975


# ---------------------------------------------------------------------------- multiple tests


def test_holm_equals_hand_computed_values():
    # 0.01 * 4, then max(0.04, 0.02 * 3), max(0.06, 0.03 * 2), max(0.06, 0.04 * 1)
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    with_none = holm([0.02, np.nan, 0.03])
    assert with_none[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan(with_none[1])
    assert holm([0.9, 0.9]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_a_permutation_test_counts_ties_and_does_not_depend_on_batches():
    values_N, weights_N = np.arange(20.0), np.repeat([0.1, 0.3], 10)

    def total(values_PN):
        return values_PN @ weights_N

    test = permutation_test(total, values_N, 99)
    assert test.pvalue == 0.01  # of the largest sum
    assert np.array_equal(test.null_distribution, permutation_test(total, values_N, 99, 7).null_distribution)
    assert permutation_test(lambda values_PN: values_PN.mean(axis=-1) / 3, values_N, 99).pvalue == 1
