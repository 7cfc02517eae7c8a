"""Results as files and tables: predictions per task, scores by category beside a constant baseline."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from dataloader.baselines import constant_baseline
from dataloader.gym import Gym
from dataloader.ontology import Ontology
from routing_moe.evaluation import TaskFile
from routing_moe.run_state import write_text


def write_predictions(folder: Path, prefix: str, files: list[TaskFile], predictions: list[list[str]]) -> None:
    """`<prefix><sample>_<part>.jsonl` for each file: one object a line with input, prediction, answers."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, texts in zip(files, predictions, strict=True):
        lines = [
            json.dumps(
                {"input": example.input, "prediction": text, "answers": list(example.outputs)},
                ensure_ascii=False,
            )
            for example, text in zip(file.examples, texts, strict=True)
        ]
        write_text(folder / f"{prefix}{file.sample}_{file.part}.jsonl", "".join(f"{x}\n" for x in lines))


def constant_scores(gym: Gym, scores: pd.DataFrame, part: str) -> pd.Series:
    """For each row of `scores`, the metric of always giving the task's most frequent training answer."""
    return pd.Series(
        [
            constant_baseline(
                gym.examples(row.task_prefix, "train", "all"),
                gym.examples(row.task_prefix, part, row.sample),
                row.metric,
            )
            for row in scores.itertuples()
        ],
        index=scores.index,
    )


def category_table(scores: dict[str, pd.DataFrame], gym: Gym, ontology: Ontology) -> pd.DataFrame:
    """Mean dev and test scores per category, beside the constant baseline's.

    scores: {"dev": ..., "test": ...} as `evaluation.predict` returns them. One row per category in the
    ontology's order, then "all"; columns tasks, then score and constant for each part.
    """
    parts = {}
    for part, table in scores.items():
        table = table.assign(
            constant=constant_scores(gym, table, part),
            category=[ontology.category(task)[0] for task in table["task_prefix"]],
        )
        everything = table.assign(category="all")
        grouped = pd.concat([table, everything]).groupby("category", sort=False)
        parts["tasks"] = grouped["task_prefix"].nunique()
        parts[part] = grouped["performance"].mean()
        parts[f"{part}, constant"] = grouped["constant"].mean()
    order = [*ontology.categories, "uncategorised", "all"]
    table = pd.DataFrame(parts)
    return table.loc[[name for name in order if name in table.index]]


def markdown_table(table: pd.DataFrame, digits: int = 3) -> str:
    """A data frame as a Markdown table whose columns also line up in a terminal."""
    header = [table.index.name or "", *map(str, table.columns)]
    rows = [[str(name), *(_cell(value, digits) for value in row)] for name, *row in table.itertuples()]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Iterable[str]) -> str:
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(line(cells) for cells in [header, rule, *rows])


def _cell(value, digits: int) -> str:
    return str(value) if isinstance(value, int | str) else f"{value:.{digits}f}"
