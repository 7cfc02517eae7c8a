"""Intervals and p-values for means over tasks and seeds, corrections for multiple tests, permutation tests.

    found = mean_interval(differences_ST)     # seeds x tasks, paired differences
    found.low, found.high, found.p, found.detectable, found.over

S seeds (runs), T tasks, M tests. docs/results/protocols/coverage.md has the measured coverage of the
intervals, which explains the choice of the design.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FEWEST_TASKS = 6
CONFIDENCE = 0.95
POWER = 0.8
SEEDS_AND_TASKS, TASKS_ALONE, SEEDS_ALONE = "seeds x tasks", "tasks", "seeds"
# {design: what its interval covers}. Other seeds with the same tasks; other seeds and other tasks; other
# tasks with the same runs.
DESIGNS = {"seeds": SEEDS_ALONE, "seeds_and_tasks": SEEDS_AND_TASKS, "tasks": TASKS_ALONE}
AUTO = "auto"
TWO_WAY_FROM = 5  # seeds: with fewer, the two-way interval covers too little
ROUNDING = 1e-12  # a standard error below this share of the values is rounding error
PERMUTATIONS = 10_000
DIGITS = 9  # of a permuted statistic: values that differ by rounding errors are equal
NONE = float("nan")


@dataclass(frozen=True)
class Interval:
    """Ends of an interval of a mean and the two-sided p-value for a mean of 0; all NaN without interval.

    over: what the interval covers, one of DESIGNS' values, or why there is no interval. detectable: the
    smallest detectable effect of the same test (`detectable_effect`).
    """

    low: float
    high: float
    p: float
    over: str
    detectable: float = NONE


def mean_interval(values_ST, design: str = AUTO) -> Interval:
    """Returns the t interval of the mean of a seeds x tasks table.

    values_ST: (S, T), or (T,) for one seed. design: one of DESIGNS, or AUTO for that of `design_of`. No
    interval for fewer than FEWEST_TASKS tasks, for one seed in a design over seeds, or if a value is NaN or
    infinite. p is that of the corresponding t test: below 1 - CONFIDENCE if the interval excludes 0.
    """
    values_ST = np.atleast_2d(np.asarray(values_ST, dtype=float))
    seeds, tasks = values_ST.shape
    design = design_of(seeds) if design == AUTO else design
    over = DESIGNS[design]
    if not seeds or tasks < FEWEST_TASKS:
        return Interval(NONE, NONE, NONE, f"too few tasks ({tasks})" if seeds else "no common seed")
    if seeds == 1 and over != TASKS_ALONE:
        return Interval(NONE, NONE, NONE, "only one seed")
    if not np.isfinite(values_ST).all():
        return Interval(NONE, NONE, NONE, "values are missing")
    mean, error, df = map(float, t_of_mean(values_ST, design))
    from scipy.stats import t  # takes most of a second to import

    half = error * float(t.ppf((1 + CONFIDENCE) / 2, df))
    p = 2 * float(t.sf(abs(mean) / error, df)) if error else float(mean == 0)
    return Interval(mean - half, mean + half, p, over, detectable_effect(error, df))


def design_of(seeds: int) -> str:
    """Returns the design whose interval has the nominal coverage with this number of seeds."""
    return "tasks" if seeds < 2 else "seeds" if seeds < TWO_WAY_FROM else "seeds_and_tasks"


def t_of_mean(values_ST, design: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (mean, standard error, degrees of freedom) of tables (..., S, T), by design.

    seeds: Student's t of the seeds' means over tasks; tasks: of the tasks' means over seeds.

    seeds_and_tasks: crossed random effects. A cell is mean + seed + task + interaction. With the mean squares
    of the two-way analysis of variance (Searle, Casella & McCulloch 1992, Variance Components, section 4.3),
    the squared error is estimated by (MS_tasks + MS_seeds) / (S T). Its expectation exceeds the true value by
    the interaction's variance / (S T). The unbiased estimate subtracts MS_interaction, which can give 0 or
    less, and has lower coverage. Degrees of freedom are those of Satterthwaite (1946), at least min(S, T) -
    1. The other designs are the same with one of the mean squares.
    """
    values_ST = np.asarray(values_ST, dtype=float)
    seeds, tasks = values_ST.shape[-2:]
    mean = values_ST.mean(axis=(-2, -1))
    of_tasks, of_seeds = mean_squares(values_ST)
    of_tasks, of_seeds = of_tasks * (design != "seeds"), of_seeds * (design != "tasks")
    total = of_tasks + of_seeds
    error = np.sqrt(total / (seeds * tasks))
    error = np.where(error > ROUNDING * np.abs(values_ST).max(axis=(-2, -1)), error, 0.0)
    weighed = of_tasks**2 / (tasks - 1) + of_seeds**2 / max(1, seeds - 1)
    df = np.divide(total**2, weighed, out=np.full(np.shape(total), tasks - 1.0), where=weighed > 0)
    return mean, error, df


def detectable_effect(error: float, df: float) -> float:
    """Returns the smallest true mean that the two-sided t test at level 1 - CONFIDENCE finds with POWER.

    The statistic has the noncentral t distribution with noncentrality mean / error. The probability of a
    significant mean of the wrong sign is below 1e-6 there, and is left out. The standard error is taken as
    known, so the result is as uncertain as its estimate, most with few degrees of freedom.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    end = float(t.ppf((1 + CONFIDENCE) / 2, df))
    return error * float(brentq(lambda shift: nct.sf(end, df, shift) - POWER, 0.0, 2 * end))


def mean_squares(values_ST: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (MS_tasks, MS_seeds) of tables (..., S, T); MS_seeds is 0 for one seed. T must be 2 or more."""
    seeds, tasks = values_ST.shape[-2:]
    of_tasks = seeds * values_ST.mean(axis=-2).var(axis=-1, ddof=1)
    if seeds == 1:
        return of_tasks, np.zeros_like(of_tasks)
    return of_tasks, tasks * values_ST.mean(axis=-1).var(axis=-1, ddof=1)


# ---------------------------------------------------------------------------- multiple tests


def holm(p_M) -> np.ndarray:
    """Returns p-values (M,) corrected by the method of Holm (1979).

    At level `alpha`, the probability of any false positive is at most `alpha`, under any dependence. NaN
    stays NaN and does not count as a test.
    """
    p_M = np.asarray(p_M, dtype=float)
    corrected_M = np.full(p_M.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_M))
    order = tested[np.argsort(p_M[tested], kind="stable")]
    steps = p_M[order] * np.arange(len(order), 0, -1)
    corrected_M[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected_M


def bootstrap_interval(values_MN: np.ndarray, resamples: int = PERMUTATIONS) -> np.ndarray:
    """Returns percentile intervals (M, 2) of the means of N values (Efron & Tibshirani 1993, section 13.3).

    All M means are of the same resamples, drawn with seed 0.
    """
    rng, n = np.random.default_rng(0), values_MN.shape[1]
    equal = np.full(n, 1 / n)
    means_PM = np.array([values_MN @ rng.multinomial(n, equal) / n for _ in range(resamples)])
    return np.quantile(means_PM, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0).T


# ---------------------------------------------------------------------------- permutation tests


def permutation_test(statistic: Callable, values_N: np.ndarray, permutations: int, batch: int = 1000):
    """Returns scipy's result of a one-sided test: statistic, pvalue, null_distribution (P,).

    p: how often is the statistic, a function (..., N) to (...), as large for the values in another order? All
    N! orders are tried if they are not more than `permutations`, else random ones with seed 0; then the least
    p is 1 / (1 + permutations) (Phipson & Smyth 2010). batch: orders of one call, which bounds the memory.
    """
    from scipy import stats  # takes most of a second to import

    return stats.permutation_test(
        (values_N,),
        lambda values_PN, axis: np.round(statistic(values_PN), DIGITS),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=permutations,
        batch=batch,
        rng=0,
    )
