"""Coverage of 95% intervals of a mean over seeds and tasks, by simulation.

    routing-moe study coverage                                      under a minute
    routing-moe study coverage --simulations 100 --resamples 100    a test run
    routing-moe study coverage --output_file coverage.csv           also writes the table

A cell of a seeds x tasks table of paired differences is the sum of a task effect, a seed effect and an
interaction. Task effects have mean 0 and standard deviation 1, and are normal, skewed (exponential), or
"few": exponential in a quarter of the tasks and 0 in the others. Prints a table of coverage (mean width, in
standard deviations of a task's effect); docs/results/coverage.md discusses it.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from routing_moe.cli.console import run_command
from routing_moe.config.flags import AT_LEAST_1, SEED, Range
from routing_moe.results.statistics import mean_squares, two_way_t
from routing_moe.studies.analysis import ANALYSIS, Analysis

CONFIDENCE = 0.95
CARRIERS = 0.25  # share of tasks with an effect in the case "few"
BATCH_SIZE = 100  # simulations per batch; they share their resamples
CASES: dict[str, Callable] = {
    "normal": lambda draw, size: draw.normal(0.0, 1.0, size),
    "skewed": lambda draw, size: draw.exponential(1.0, size) - 1.0,
    "few": lambda draw, size: (
        ((draw.random(size) < CARRIERS) * draw.exponential(1.0, size) - CARRIERS)
        / np.sqrt(2 * CARRIERS - CARRIERS**2)
    ),
}
# Standard deviations of the seed effects and of the interaction, relative to those of the task effects.
SPREADS = {"little": (0.0, 0.2), "realistic": (0.3, 0.7)}
Ends = tuple[np.ndarray, np.ndarray]  # low and high ends (N,) of an interval, one per simulation


@dataclass(frozen=True, kw_only=True)
class Coverage(Analysis):
    # fmt: off
    program = "routing-moe study coverage"

    simulations: int = ANALYSIS(4000, "simulated tables per case and size", range=AT_LEAST_1)
    resamples: int = ANALYSIS(1000, "resamples of each bootstrap", range=AT_LEAST_1)
    tasks: tuple[int, ...] = ANALYSIS((8, 24), "numbers of tasks", range=Range(lambda value: value >= 2, "at least 2"))
    seeds: tuple[int, ...] = ANALYSIS((1, 3, 5), "numbers of seeds", range=AT_LEAST_1)
    seed: int = ANALYSIS(0, "seed of the simulation", range=SEED)
    # fmt: on


def run(settings: Coverage) -> None:
    if problems := settings.problems():
        raise InputError(problems)
    rows = []
    for case in CASES:
        for tasks in settings.tasks:
            rows += simulated(case, tasks, 1, "little", settings)
            for seeds in settings.seeds:
                rows += simulated(case, tasks, seeds, "realistic", settings)
    table = pd.DataFrame(rows).round(4)
    if settings.output_file:
        settings.output_file.write_text(table.to_csv(index=False))
    print(markdown(table))


# ---------------------------------------------------------------------------- simulation


def drawn_tables(case: str, size: tuple[int, int, int], spread: str, draw: np.random.Generator) -> Ends:
    """Returns simulated tables (N, S, T) and true means (N,).

    The true mean over all tasks and seeds is 0. With one seed, it is the mean over all tasks for that seed,
    because one seed has no information about others.
    """
    n, seeds, tasks = size
    seed_std, interaction_std = SPREADS[spread]
    seed_NS1 = draw.normal(0.0, seed_std, (n, seeds, 1))
    table_NST = CASES[case](draw, (n, 1, tasks)) + seed_NS1 + draw.normal(0.0, interaction_std, size)
    return table_NST, seed_NS1[:, 0, 0] if seeds == 1 else np.zeros(n)


def simulated(case: str, tasks: int, seeds: int, spread: str, settings: Coverage) -> list[dict]:
    """Returns one row per type of interval: coverage with its (binomial) standard error, mean width."""
    cell = [settings.seed, list(CASES).index(case), tasks, seeds, list(SPREADS).index(spread)]
    draw = np.random.default_rng(cell)
    table_NST, truth_N = drawn_tables(case, (settings.simulations, seeds, tasks), spread, draw)
    keys = dict(case=case, tasks=tasks, seeds=seeds, spread=spread)
    rows = []
    for name, ends_of in intervals(settings.resamples, draw).items():
        if seeds > 1 or name not in NEEDS_SEVERAL_SEEDS:
            low_N, high_N = ends_of(table_NST)
            coverage = covered(low_N, high_N, truth_N)
            error = np.sqrt(coverage * (1 - coverage) / len(truth_N))
            numbers = dict(coverage=coverage, std_error=error, mean_width=(high_N - low_N).mean())
            rows.append(keys | {"interval": name} | numbers | {"simulations": len(truth_N)})
    return rows


def covered(low_N: np.ndarray, high_N: np.ndarray, truth_N: np.ndarray) -> float:
    """Returns the share of intervals that cover the true mean."""
    return float(((low_N <= truth_N) & (truth_N <= high_N)).mean())


# ---------------------------------------------------------------------------- intervals

NEEDS_SEVERAL_SEEDS = ("two_way_t_unbiased", "hierarchical")


def intervals(resamples: int, draw: np.random.Generator) -> dict[str, Callable[[np.ndarray], Ends]]:
    """Returns {name: function from tables (N, S, T) to interval ends}.

    The first three only use means over seeds.
    """
    return {
        "percentile": lambda table: over_tasks(table, "percentile", resamples, draw),
        "bca": lambda table: over_tasks(table, "BCa", resamples, draw),
        "t": lambda table: two_way(table.mean(axis=1, keepdims=True)),
        "two_way_t": two_way,
        "two_way_t_unbiased": two_way_unbiased,
        "hierarchical": lambda table: hierarchical(table, resamples, draw),
    }


def two_way(table_NST: np.ndarray) -> Ends:
    """Returns the interval of `routing_moe.results.statistics.mean_interval` for many tables at once."""
    return t_ends(*two_way_t(table_NST))


def t_ends(mean_N: np.ndarray, error_N: np.ndarray, df_N: np.ndarray) -> Ends:
    """Returns the t interval for a mean with this standard error and these degrees of freedom."""
    from scipy.stats import t  # takes most of a second to import

    half_N = error_N * t.ppf((1 + CONFIDENCE) / 2, df_N)
    return mean_N - half_N, mean_N + half_N


def two_way_unbiased(table_NST: np.ndarray) -> Ends:
    """Returns the interval of `two_way` with the unbiased variance.

    That is (MS_tasks + MS_seeds - MS_interaction) / (S T), at least MS_tasks / (S T), with Satterthwaite's
    degrees of freedom, at least 1.
    """
    _, seeds, tasks = table_NST.shape
    ms_tasks, ms_seeds = mean_squares(table_NST)
    means_N11 = table_NST.mean(axis=(1, 2), keepdims=True)
    rest_NST = table_NST - table_NST.mean(axis=1, keepdims=True) - table_NST.mean(axis=2, keepdims=True)
    ms_interaction = ((rest_NST + means_N11) ** 2).sum(axis=(1, 2)) / ((seeds - 1) * (tasks - 1))
    is_larger = ms_seeds > ms_interaction
    total = ms_tasks + np.where(is_larger, ms_seeds - ms_interaction, 0.0)
    seed_terms = ms_seeds**2 / (seeds - 1) + ms_interaction**2 / ((seeds - 1) * (tasks - 1))
    df = total**2 / (ms_tasks**2 / (tasks - 1) + np.where(is_larger, seed_terms, 0.0))
    return t_ends(means_N11[:, 0, 0], np.sqrt(total / (seeds * tasks)), np.maximum(1.0, df))


def over_tasks(table_NST: np.ndarray, method: str, resamples: int, draw: np.random.Generator) -> Ends:
    """Returns scipy's bootstrap of tasks, with each task's mean over seeds."""
    from scipy.stats import bootstrap

    intervals = []
    for values_nT in in_batches(table_NST.mean(axis=1)):
        options = dict(n_resamples=resamples, confidence_level=CONFIDENCE, method=method, rng=draw)
        ends = bootstrap((values_nT,), np.mean, axis=1, **options).confidence_interval
        intervals.append((ends.low, ends.high))
    return tuple(np.concatenate(ends) for ends in zip(*intervals, strict=True))


def hierarchical(table_NST: np.ndarray, resamples: int, draw: np.random.Generator) -> Ends:
    """Returns the percentile bootstrap of seeds and of tasks, each drawn with replacement.

    Owen 2007, the pigeonhole bootstrap.
    """
    _, seeds, tasks = table_NST.shape
    intervals = []
    for values_nST in in_batches(table_NST):
        seeds_BS = draw.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
        tasks_BT = draw.multinomial(tasks, np.full(tasks, 1 / tasks), resamples) / tasks
        means_nB = ((seeds_BS @ values_nST) * tasks_BT).sum(axis=-1)
        intervals.append(np.quantile(means_nB, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1))
    return tuple(np.concatenate(intervals, axis=1))


def in_batches(array: np.ndarray) -> list[np.ndarray]:
    return [array[start : start + BATCH_SIZE] for start in range(0, len(array), BATCH_SIZE)]


# ---------------------------------------------------------------------------- tables


def markdown(table: pd.DataFrame) -> str:
    """Returns a Markdown table with one row per case, tasks and seeds; cells: coverage (mean width)."""
    names = list(dict.fromkeys(table["interval"]))
    lines = ["| case | tasks | seeds | " + " | ".join(names) + " |", "|---|--:|--:|" + "--:|" * len(names)]
    keys = ["case", "tasks", "seeds", "spread"]
    for (case, tasks, seeds, spread), rows in table.groupby(keys, sort=False):
        cell_of = {row.interval: f"{row.coverage:.3f} ({row.mean_width:.2f})" for row in rows.itertuples()}
        seeds_and_noise = f"{seeds}, little noise" if spread == "little" else str(seeds)
        cells = [case, str(tasks), seeds_and_noise, *(cell_of.get(name, "-") for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    return run_command(run, Coverage, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
