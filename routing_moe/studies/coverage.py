"""Coverage of 95% intervals of a mean over seeds and tasks, by simulation.

    routing-moe study coverage                              a minute
    routing-moe study coverage --simulations 100            a test run
    routing-moe study coverage --output_file coverage.csv   also writes the table

A cell of a seeds x tasks table of paired differences is the sum of a task effect, a seed effect and an
interaction. Task effects have mean 0 and standard deviation 1, and are normal, skewed (exponential), or
"few": exponential in a quarter of the tasks and 0 in the others. Seed effects are normal, in the case
"few seeds" like task effects of "few". Prints a table of coverage; docs/results/coverage.md discusses it.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from routing_moe.config.flags import AT_LEAST_1, NOT_NEGATIVE, SEED, Range
from routing_moe.results.statistics import CONFIDENCE, DESIGNS, design_of, t_of_mean
from routing_moe.studies.analysis import ANALYSIS, Analysis, run_analysis

CARRIERS = 0.25  # share with an effect in the cases "few"


def normal(draw: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return draw.normal(0.0, 1.0, size)


def skewed(draw: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    return draw.exponential(1.0, size) - 1.0


def few(draw: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    effects = (draw.random(size) < CARRIERS) * draw.exponential(1.0, size)
    return (effects - CARRIERS) / np.sqrt(2 * CARRIERS - CARRIERS**2)


CASES: dict[str, tuple[Callable, Callable]] = {  # {name: (effects of tasks, of seeds)}
    "normal": (normal, normal),
    "skewed": (skewed, normal),
    "few": (few, normal),
    "few seeds": (normal, few),
}
INTERACTION_STD = 0.7


@dataclass(frozen=True, kw_only=True)
class Coverage(Analysis):
    # fmt: off
    program = "routing-moe study coverage"

    simulations: int = ANALYSIS(4000, "simulated tables per case and size", range=AT_LEAST_1)
    seeds: tuple[int, ...] = ANALYSIS((1, 2, 3, 4, 5, 8), "numbers of seeds", range=AT_LEAST_1)
    tasks: tuple[int, ...] = ANALYSIS((14, 25, 80), "numbers of tasks", range=Range(lambda value: value >= 2, "at least 2"))
    seed_stds: tuple[float, ...] = ANALYSIS((0.3, 0.6), f"standard deviations of the seed effects; those of task effects are 1, of the interaction {INTERACTION_STD}", range=NOT_NEGATIVE)
    seed: int = ANALYSIS(0, "seed of the simulation", range=SEED)
    # fmt: on


def run(settings: Coverage) -> None:
    cells = [
        (seeds, tasks, std, case)
        for seeds in settings.seeds
        for tasks in settings.tasks
        for std in settings.seed_stds
        for case in CASES
    ]
    table = pd.DataFrame([row for cell in cells for row in simulated(*cell, settings)]).round(4)
    if settings.output_file:
        settings.output_file.write_text(table.to_csv(index=False))
    print(markdown(table))


# ---------------------------------------------------------------------------- simulation


def drawn_tables(
    size: tuple[int, int, int], seed_std: float, case: str, draw: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns simulated tables (N, S, T), and {design: true means (N,)}.

    The truth of seeds is the mean of these tasks over all seeds; that of tasks the mean of these runs over
    all tasks; that of seeds_and_tasks the mean over all seeds and tasks, 0.
    """
    n, seeds, tasks = size
    of_tasks, of_seeds = CASES[case]
    task_N1T, seed_NS1 = of_tasks(draw, (n, 1, tasks)), seed_std * of_seeds(draw, (n, seeds, 1))
    table_NST = task_N1T + seed_NS1 + draw.normal(0.0, INTERACTION_STD, size)
    truth = {"seeds": task_N1T, "tasks": seed_NS1, "seeds_and_tasks": np.zeros((n, 1, 1))}
    return table_NST, {design: means.mean(axis=(1, 2)) for design, means in truth.items()}


def simulated(seeds: int, tasks: int, seed_std: float, case: str, settings: Coverage) -> list[dict]:
    """Returns one row per design: coverage of its truth with its (binomial) standard error, that of the mean
    over all seeds and tasks, mean width and its quantiles 10% and 90%."""
    cell = [settings.seed, seeds, tasks, round(1000 * seed_std), list(CASES).index(case)]
    size = (settings.simulations, seeds, tasks)
    table_NST, truth = drawn_tables(size, seed_std, case, np.random.default_rng(cell))
    rows = []
    for design in DESIGNS if seeds > 1 else [design_of(1)]:
        low_N, high_N = ends(table_NST, design)
        coverage, of_all = (covered(low_N, high_N, truth[target]) for target in (design, "seeds_and_tasks"))
        widths_N = high_N - low_N
        rows.append(dict(
            seeds=seeds, tasks=tasks, seed_std=seed_std, case=case, design=design, coverage=coverage,
            std_error=np.sqrt(coverage * (1 - coverage) / len(low_N)), coverage_of_all=of_all,
            mean_width=widths_N.mean(), width_p10=np.quantile(widths_N, 0.1),
            width_p90=np.quantile(widths_N, 0.9), simulations=len(low_N),
        ))  # fmt: skip
    return rows


def ends(table_NST: np.ndarray, design: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends (N,) of the interval of `routing_moe.results.statistics.mean_interval`."""
    from scipy.stats import t  # takes most of a second to import

    mean_N, error_N, df_N = t_of_mean(table_NST, design)
    half_N = error_N * t.ppf((1 + CONFIDENCE) / 2, df_N)
    return mean_N - half_N, mean_N + half_N


def covered(low_N: np.ndarray, high_N: np.ndarray, truth_N: np.ndarray) -> float:
    """Returns the share of intervals that cover the true mean."""
    return float(((low_N <= truth_N) & (truth_N <= high_N)).mean())


# ---------------------------------------------------------------------------- tables


def markdown(table: pd.DataFrame) -> str:
    """Returns a Markdown table with a row per size and seed std; cells: coverage in each case, mean width.

    The width is that of the first case.
    """
    names = list(dict.fromkeys(table["design"]))
    lines = [
        "| seeds | tasks | seed std | " + " | ".join(names) + " |",
        "|--:|--:|--:|" + "--:|" * len(names),
    ]
    for size, rows in table.groupby(["seeds", "tasks", "seed_std"], sort=False):
        cells = []
        for name in names:
            own = rows[rows["design"] == name]
            coverages = " ".join(f"{value:.3f}" for value in own["coverage"])
            cells.append(f"{coverages} ({own['mean_width'].iloc[0]:.2f})" if len(own) else "-")
        lines.append(f"| {' | '.join([*map(str, size), *cells])} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    return run_analysis(run, Coverage, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
