"""Costs of fine-tuned models, from results files to summaries and tables.

Results files have TRAINING_COST in every row: parameters of the fine-tuned model, training FLOPs per example
(`flops.py`), steps and total FLOPs of the configuration. Older files and those of the published code lack
these columns, so their costs are unknown.
"""

import math
from pathlib import Path

import pandas as pd

from routing_moe.io.csv_files import read_table
from routing_moe.results.run_cost import TRAINING_COST, shown_cost
from routing_moe.results.scores import markdown_table


def sample_costs(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns TRAINING_COST as numbers for each row of a results file that was read as text.

    NaN if unknown.
    """
    numbers = {name: rows.get(name, pd.Series(math.nan, rows.index)) for name in TRAINING_COST}
    return pd.DataFrame(numbers, index=rows.index).apply(pd.to_numeric, errors="coerce")


def with_costs(table: pd.DataFrame, costs_of: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns a summary with TRAINING_COST, if any is known: of each sample, and the mean in the rows "mean".

    costs_of: {task: `sample_costs` by sample}.
    """
    if all(costs.isna().all(axis=None) for costs in costs_of.values()):
        return table
    rows = []
    for row in table.itertuples():
        costs = costs_of[row.task]
        one = costs.mean(skipna=False) if row.entry == "mean" else costs.reindex([row.entry]).iloc[0]
        rows.append(one)
    return table.assign(**{name: [row[name] for row in rows] for name in TRAINING_COST})


def summary_cost(path: Path, tasks: list[str]) -> dict[str, float]:
    """Returns the mean TRAINING_COST of a summary over these tasks; NaN if one has none.

    Scores without fine-tuning have none. Raises InputError.
    """
    rows = read_table(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if "entry" not in rows:
        return dict.fromkeys(TRAINING_COST, math.nan)
    means = rows[(rows["entry"].str.strip() == "mean") & rows["task"].str.strip().isin(tasks)]
    return sample_costs(means).mean(skipna=False).to_dict()


def costs_markdown(cost_of: dict[str, dict[str, float]]) -> str:
    """Returns a Markdown table with a row per system. cost_of: {system: `summary_cost`}."""
    names = ("active parameters", "total parameters", "FLOPs per example", "steps", "total FLOPs")
    rows = {
        system: {shown: shown_cost(cost[name]) for shown, name in zip(names, TRAINING_COST, strict=True)}
        for system, cost in cost_of.items()
    }
    table = markdown_table(pd.DataFrame.from_dict(rows, orient="index").rename_axis("system"))
    what = "Cost of fine-tuning the best configurations, mean over samples and tasks (-: not in the summary)."
    return f"{what}\n\n{table}"
