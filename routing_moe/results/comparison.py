"""Variants compared over runs of several seeds: means, sample standard deviations, paired differences.

    table = comparison_table(scores, ontology, baseline="dense")
    print(comparison_markdown(table, "dense"))

Below, `scores` has one row per run and task: variant, run, seed, task, performance, constant.
"""

import numpy as np
import pandas as pd

from dataloader.ontology import Ontology
from routing_moe.results.markdown import markdown_table, mean_and_std, shown_p
from routing_moe.results.scores import in_categories
from routing_moe.results.statistics import FEWEST_TASKS, TASKS_ALONE, holm, mean_interval

CONSTANT = "constant answer"  # the baseline's name among the variants


def means_per_run(scores: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns the mean over the tasks of each category and of all tasks, with equal weights, for each run.

    Columns variant, run, seed, category, tasks (their number), mean; variants in the order of `scores`.
    """
    variants = pd.Categorical(scores["variant"], categories=scores["variant"].unique())
    rows = in_categories(scores.assign(variant=variants), ontology)
    grouped = rows.groupby(["variant", "run", "seed", "category"], sort=False, observed=True)
    table = grouped["performance"].agg(tasks="size", mean="mean").reset_index()
    table = table.sort_values(["variant", "seed", "category"], ignore_index=True)
    return table.astype({"variant": str})


def means_over_runs(per_run: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean and sample std (NaN for one run) of `means_per_run` over the n runs of a variant."""
    grouped = per_run.groupby(["variant", "category"], sort=False, observed=True)
    columns = dict(tasks=("tasks", "first"), mean=("mean", "mean"), std=("mean", "std"), n=("mean", "size"))
    return grouped.agg(**columns).reset_index()


def constant_means(scores: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Returns the mean constant score of each category and of all tasks; NaN if a task has none.

    Has no n, because the baseline has no runs.
    """
    tasks = in_categories(scores.drop_duplicates("task"), ontology)
    grouped = tasks["constant"].astype(float).groupby(tasks["category"], observed=True)
    table = grouped.agg(tasks="size", mean=lambda values: values.mean(skipna=False)).reset_index()
    return table.assign(variant=CONSTANT)


def paired_by_seed(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Returns score minus baseline score of the same seed: a row per variant and task, a column per seed.

    NaN if one of the two has no run with that seed.
    """
    table = scores.pivot(index=["variant", "task"], columns="seed", values="performance")
    others = table.drop(index=baseline, level="variant")
    return others - table.loc[baseline].reindex(others.index.get_level_values("task")).to_numpy()


def mean_differences(scores: pd.DataFrame, ontology: Ontology, baseline: str) -> pd.DataFrame:
    """Returns the mean of `paired_by_seed` over tasks and common seeds, with its interval and p-value.

    Columns variant, category, difference, low, high (`statistics.mean_interval` over seeds and tasks), pairs
    (common seeds), p (two-sided, of the corresponding t test), p_holm (over the variants of a category),
    interval (what it covers, or why there is none).
    """
    rows = []
    by_seed = paired_by_seed(scores, baseline)
    tasks = in_categories(by_seed.index.to_frame(index=False), ontology)
    for (variant, category), group in tasks.groupby(["variant", "category"], sort=False, observed=True):
        # Finished runs have the same tasks, so a seed has scores of all tasks or of none.
        values_TS = by_seed.loc[[(variant, task) for task in group["task"]]].dropna(axis="columns")
        interval = mean_interval(values_TS.to_numpy().T)
        numbers = (values_TS.mean(axis=1).mean(), interval.low, interval.high, values_TS.shape[1], interval.p)
        rows.append((variant, category, *numbers, interval.over))
    columns = ["variant", "category", "difference", "low", "high", "pairs", "p", "interval"]
    table = pd.DataFrame(rows, columns=columns)
    corrected = table.groupby("category", observed=True)["p"].transform(holm)
    table.insert(columns.index("interval"), "p_holm", corrected)
    return table


def comparison_table(scores: pd.DataFrame, ontology: Ontology, baseline: str | None = None) -> pd.DataFrame:
    """Returns one row per variant and category, then those of the constant answer.

    Columns variant, category, tasks, mean, std, n; with a baseline also the columns of `mean_differences`,
    which are empty for the baseline.
    """
    table = means_over_runs(means_per_run(scores, ontology))
    table = pd.concat([table, constant_means(scores, ontology)], ignore_index=True)
    table["category"] = table["category"].astype(str)
    if baseline is not None:
        differences = mean_differences(scores, ontology, baseline).astype({"category": str})
        table = table.merge(differences, how="left", on=["variant", "category"])
    return table.astype({name: "Int64" for name in ("n", "pairs") if name in table})


def explain_comparison(what: str, checkpoint: str, baseline: str | None, draws: dict[str, int]) -> str:
    """Returns an explanation of `comparison_markdown`.

    draws: {variant: number of draws of routes that its scores are means of}.
    """
    lines = [
        f"{what.capitalize()}, checkpoint {checkpoint}: mean ± sample std over n runs with",
        "different seeds. All tasks have equal weight; the number of tasks is in brackets.",
        f"{CONSTANT.capitalize()}: each task's most frequent training answer.",
    ]
    if baseline is not None:
        lines += [
            f"Minus {baseline}: differences between runs with the same seed, mean over seeds and tasks; in",
            "brackets the 95% two-way t interval over seeds and tasks (with one seed, over tasks only, not",
            f"covering other seeds), none below {FEWEST_TASKS} tasks. p: the corresponding t test; p (Holm):",
            "corrected for the number of variants. If few tasks account for the effect, intervals are too",
            "narrow.",
        ]
    lines += [f"Scores of {variant} are means over {n} draws of its routes." for variant, n in draws.items()]
    return "\n".join(lines)


def comparison_markdown(table: pd.DataFrame, baseline: str | None = None) -> str:
    """Returns `comparison_table` as Markdown: a row per variant, a column per category."""
    rows = {}
    for variant, group in table.groupby("variant", sort=False):
        n = group["n"].iloc[0]
        row = {"n": "" if pd.isna(n) else str(n)}
        row |= {f"{x.category} ({x.tasks})": mean_and_std(x.mean, x.std) for x in group.itertuples()}
        if baseline is not None:
            last = group.iloc[-1]
            row[f"all, minus {baseline}"] = _difference(last)
            row |= {"p": shown_p(last["p"]), "p (Holm)": shown_p(last["p_holm"])}
        rows[variant] = row
    return markdown_table(rows, "variant")


def _difference(row: pd.Series) -> str:
    """Returns "+0.027 [+0.002, +0.057]", marked if it covers tasks only, or the reason for no interval."""
    if np.isnan(row["difference"]):
        return row["interval"] if isinstance(row["interval"], str) else ""
    if np.isnan(row["low"]):
        return f"{row['difference']:+.3f}, {row['interval']}"
    over = f" ({TASKS_ALONE} alone)" if row["interval"] == TASKS_ALONE else ""
    return f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]{over}"
