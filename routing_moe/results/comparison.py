"""Variants compared over runs of several seeds: means, sample standard deviations, paired differences.

    table = comparison_table(scores, ontology, baseline="dense")
    print(comparison_markdown(table, "dense"))

Below, `scores` has one row per run and task: variant, run, seed, task, and a column per measure and baseline
(`measures.py`). A measure's table is over the tasks that have it.
"""

from collections.abc import Collection

import pandas as pd

from dataloader.ontology import Ontology
from routing_moe.results.contrasts import contrast_table, shown_difference, shown_number
from routing_moe.results.markdown import markdown_table, mean_and_std, shown_p
from routing_moe.results.measures import CONSTANT, NAMES, UNITS
from routing_moe.results.scores import ALL, in_categories

PERFORMANCE = "performance"


def means_per_run(scores: pd.DataFrame, ontology: Ontology, measure: str = PERFORMANCE) -> pd.DataFrame:
    """Returns the mean over the tasks of each category and of all tasks, with equal weights, for each run.

    Columns variant, run, seed, category, tasks (their number), mean; variants in the order of `scores`.
    """
    variants = pd.Categorical(scores["variant"], categories=scores["variant"].unique())
    rows = in_categories(scores.assign(variant=variants).dropna(subset=measure), ontology)
    grouped = rows.groupby(["variant", "run", "seed", "category"], sort=False, observed=True)
    table = grouped[measure].agg(tasks="size", mean="mean").reset_index()
    table = table.sort_values(["variant", "seed", "category"], ignore_index=True)
    return table.astype({"variant": str})


def means_over_runs(per_run: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean and sample std (NaN for one run) of `means_per_run` over the n runs of a variant."""
    grouped = per_run.groupby(["variant", "category"], sort=False, observed=True)
    columns = dict(tasks=("tasks", "first"), mean=("mean", "mean"), std=("mean", "std"), n=("mean", "size"))
    return grouped.agg(**columns).reset_index()


def baseline_means(scores: pd.DataFrame, ontology: Ontology, measure: str = PERFORMANCE) -> pd.DataFrame:
    """Returns the mean score of the measure's baselines by category, over the tasks that have one.

    Columns variant (the baseline's name), category, tasks (their number), mean. No n, because a baseline has
    no runs. A baseline without any score is left out, except the constant answer of the performance.
    """
    tasks = scores.dropna(subset=measure).drop_duplicates("task")
    tables = []
    for column in UNITS[measure]:
        name = NAMES[column]
        if column not in tasks or (name != CONSTANT and tasks[column].isna().all()):
            continue
        rows = in_categories(tasks, ontology)
        grouped = rows[column].astype(float).groupby(rows["category"], observed=True)
        tables.append(grouped.agg(tasks="count", mean="mean").reset_index().assign(variant=name))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def comparison_table(
    scores: pd.DataFrame,
    ontology: Ontology,
    baseline: str | None = None,
    measure: str = PERFORMANCE,
    contrasts: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Returns one row per variant and category, then those of the baselines of the measure.

    Columns variant, category, tasks, mean, std, n; with a baseline also the columns of `contrast_table`,
    which are empty for the baseline. contrasts: that table, if it is known.
    """
    table = means_over_runs(means_per_run(scores, ontology, measure))
    table = pd.concat([table, baseline_means(scores, ontology, measure)], ignore_index=True)
    table["category"] = table["category"].astype(str)
    if baseline is not None:
        if contrasts is None:
            others = [name for name in scores["variant"].unique() if name != baseline]
            pairs = [(name, baseline) for name in others]
            contrasts = contrast_table(scores, ontology, pairs, [measure])
        own = contrasts[(contrasts["minus"] == baseline) & (contrasts["measure"] == measure)]
        own = own.drop(columns=["measure", "minus", "tasks"])
        table = table.merge(own, how="left", on=["variant", "category"])
    return table.astype({name: "Int64" for name in ("n", "pairs") if name in table})


# ---------------------------------------------------------------------------- Markdown


def explain_comparison(what: str, checkpoint: str, names: Collection[str], draws: dict[str, int]) -> str:
    """Returns an explanation of the means of `comparison_markdown`.

    names: the variants and baselines in the tables. draws: {variant: number of draws of routes that its
    scores are means of}.
    """
    lines = [
        f"{what.capitalize()}, checkpoint {checkpoint}: mean ± sample std over n runs with",
        "different seeds. All tasks have equal weight; the number of tasks is in brackets.",
    ]
    explained = {
        CONSTANT: "each task's most frequent training answer.",
        NAMES["chance"]: "expected accuracy of a uniform choice among the options of a task.",
        NAMES["copy"]: "the input as the answer.",
    }
    lines += [f"{name.capitalize()}: {text}" for name, text in explained.items() if name in names]
    lines += [f"Scores of {variant} are means over {n} draws of its routes." for variant, n in draws.items()]
    return "\n".join(lines)


def comparison_markdown(table: pd.DataFrame, baseline: str | None = None) -> str:
    """Returns `comparison_table` as Markdown: a row per variant, a column per category.

    A mean over fewer tasks than the category has is followed by their number.
    """
    rows, sizes = {}, table.groupby("category", sort=False)["tasks"].max()
    for variant, group in table.groupby("variant", sort=False):
        n = group["n"].iloc[0]
        row = {"n": "" if pd.isna(n) else str(n)}
        for x in group.itertuples():
            fewer = f" ({x.tasks})" if 0 < x.tasks < sizes[x.category] else ""
            row[f"{x.category} ({sizes[x.category]})"] = mean_and_std(x.mean, x.std) + fewer
        if baseline is not None:
            over_all = group[group["category"] == ALL].iloc[0]
            row[f"all, minus {baseline}"] = shown_difference(over_all)
            if "detectable" in table:
                row["detectable"] = shown_number(over_all["detectable"])
            row |= {"p": shown_p(over_all["p"]), "p (Holm)": shown_p(over_all["p_holm"])}
        rows[variant] = row
    return markdown_table(rows, "variant")
