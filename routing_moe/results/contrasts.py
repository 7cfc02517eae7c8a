"""Paired differences of variants, with intervals, smallest detectable effects and corrected p-values.

`scores` is that of comparison.py: a row per run and task. A contrast (a, b) is a minus b, of runs with the
same seed.
"""

import textwrap
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from dataloader.errors import InputError
from dataloader.ontology import Ontology
from routing_moe.results.markdown import markdown_table, shown_p
from routing_moe.results.scores import ALL, in_categories
from routing_moe.results.statistics import (
    AUTO,
    FEWEST_TASKS,
    SEEDS_ALONE,
    TASKS_ALONE,
    holm,
    mean_interval,
)

COLUMNS = ("measure", "variant", "minus", "category", "tasks", "difference", "low", "high", "pairs", "p")
EXPLAINED = (
    "in brackets the 95% t interval: two-way over seeds and tasks, or over seeds with the tasks as fixed "
    "(marked: these tasks; other tasks are not covered), or over tasks with the runs as fixed (marked: tasks "
    f"alone; other seeds are not covered); none below {FEWEST_TASKS} tasks, and too narrow if few tasks or "
    "seeds account for the effect. Detectable: the smallest true difference that this test finds at the 5% "
    "level with a probability of 80%, by its standard error and the noncentral t distribution."
)
LINE_WIDTH = 100  # characters of an explanation
OVER_GYMS = "gyms"  # what an interval over seeds covers if each seed has a gym with tasks of its own
MARKS = {SEEDS_ALONE: " (these tasks)", TASKS_ALONE: " (tasks alone)", OVER_GYMS: " (gyms)"}


def parsed_contrast(text: str) -> tuple[str, str]:
    """Returns ("a", "b") for "a:b". Raises InputError."""
    names = text.split(":")
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise InputError(f"--contrasts {text}: expected A:B, two different variants, for A minus B")
    return names[0], names[1]


def paired_by_seed(scores: pd.DataFrame, contrast: tuple[str, str], measure: str) -> pd.DataFrame:
    """Returns the differences of a contrast: a row per task with the measure, a column per common seed."""
    rows = scores.dropna(subset=measure)
    first, second = (
        rows[rows["variant"] == variant].pivot(index="task", columns="seed", values=measure)
        for variant in contrast
    )
    common = [seed for seed in first if seed in second]
    # Finished runs have the same tasks; with a gym for each seed, tasks may lack a measure in some of them.
    return (first[common] - second[common].reindex(first.index)).dropna()


def contrast_table(
    scores: pd.DataFrame,
    ontology: Ontology,
    contrasts: Sequence[tuple[str, str]],
    measures: Sequence[str],
    primary: Collection[str] = (),
    design: str = AUTO,
) -> pd.DataFrame:
    """Returns the mean differences over tasks and common seeds: a row per measure, contrast and category.

    Columns COLUMNS: of the two variants, their measure and the number of tasks; difference, low, high
    (`statistics.mean_interval`), pairs (common seeds), p (two-sided, of the corresponding t test). Then
    p_holm, corrected over all contrasts and primary measures (by default the first) of the category, NaN for
    other measures; detectable (smallest detectable effect); interval (what it covers, or why there is none).
    """
    rows = []
    for measure in measures:
        for contrast in contrasts:
            by_seed = paired_by_seed(scores, contrast, measure)
            tasks = in_categories(by_seed.index.to_frame(index=False), ontology)
            for category, group in tasks.groupby("category", sort=False, observed=True):
                values_TS = by_seed.loc[group["task"]]
                found = mean_interval(values_TS.to_numpy().T, design)
                size, mean = values_TS.shape, values_TS.mean(axis=1).mean()
                row = (measure, *contrast, category, size[0], mean, found.low, found.high, size[1], found.p)
                rows.append((*row, found.detectable, found.over))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "detectable", "interval"])
    family = table["p"].where(table["measure"].isin(primary or measures[:1]))
    corrected = family.groupby(table["category"]).transform(holm)
    table.insert(len(COLUMNS), "p_holm", corrected)
    return table


# ---------------------------------------------------------------------------- Markdown


def explain_contrasts(
    contrasts: Sequence[tuple[str, str]], primary: Collection[str], gym_per_seed: bool = False
) -> str:
    """Returns an explanation of differences, intervals and p-values in tables."""
    minus = {baseline for _, baseline in contrasts}
    start = f"Minus {minus.pop()}: differences" if len(minus) == 1 else "Differences"
    text = (
        f"{start} between runs with the same seed, mean over seeds and tasks; {EXPLAINED} p: the "
        f"corresponding t test; p (Holm): corrected over all contrasts ({len(contrasts)}) in the primary "
        f"measures ({', '.join(primary)}) on all tasks; single categories are secondary, "
        "with families of their own."
    )
    if gym_per_seed:
        text += " Each seed has a gym of its own: intervals over seeds (marked: gyms) cover other gyms."
    return textwrap.fill(text, LINE_WIDTH)


def contrasts_markdown(table: pd.DataFrame) -> str:
    """Returns `contrast_table` as Markdown: a row per contrast and measure, over all tasks."""
    rows = {}
    for number, (_, row) in enumerate(table[table["category"] == ALL].iterrows()):
        rows[number] = {
            "contrast": f"{row['variant']} minus {row['minus']}",
            "measure": row["measure"],
            "tasks": f"{row['category']} ({row['tasks']})",
            "difference": shown_difference(row),
            "seeds": str(row["pairs"]),
            "detectable": shown_number(row["detectable"]),
            "p": shown_p(row["p"]),
            "p (Holm)": shown_p(row["p_holm"]),
        }
    frame = pd.DataFrame(rows.values())
    return markdown_table(frame.set_index("contrast"))


def shown_number(number: float) -> str:
    """Returns three decimals, "" for NaN."""
    return "" if np.isnan(number) else f"{number:.3f}"


def shown_difference(row: Mapping) -> str:
    """Returns "+0.027 [+0.002, +0.057]", marked unless it is two-way, or the reason for no interval."""
    if np.isnan(row["difference"]):
        return row["interval"] if isinstance(row["interval"], str) else ""
    if np.isnan(row["low"]):
        return f"{row['difference']:+.3f}, {row['interval']}"
    mark = MARKS.get(row["interval"], "")
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{mark}"
