"""Results as files and tables: predictions per task, scores by category beside a constant baseline."""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from dataloader.baselines import constant_baseline
from dataloader.errors import InputError
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


def constant_scores(files: list[TaskFile], *gyms: Gym) -> list[float | None]:
    """For each scored file, the metric of always giving the task's most frequent training answer.

    The training examples come from the first gym that has the task's; None where none has.
    """
    return [_constant_score(file, gyms) for file in files]


def _constant_score(file: TaskFile, gyms: tuple[Gym, ...]) -> float | None:
    for gym in gyms:
        with contextlib.suppress(InputError):
            return constant_baseline(gym.examples(file.task, "train", "all"), file.examples, file.metric)
    return None


def category_table(scores: dict[str, pd.DataFrame], ontology: Ontology) -> pd.DataFrame:
    """Mean dev and test scores per category, beside the constant baseline's. Every task weighs the same.

    scores: {"dev": ..., "test": ...}, tables with columns task_prefix, performance and constant. One row
    per category in the ontology's order, then "all"; columns tasks, then score and constant of each part.
    """
    parts = {}
    for part, table in scores.items():
        tasks = table.groupby("task_prefix")[["performance", "constant"]].mean()
        tasks["category"] = [ontology.category(task)[0] for task in tasks.index]
        grouped = pd.concat([tasks, tasks.assign(category="all")]).groupby("category", sort=False)
        parts["tasks"] = grouped.size()
        parts[part] = grouped["performance"].mean()
        parts[f"{part}, constant"] = grouped["constant"].mean()
    order = [*ontology.categories, "uncategorised", "all"]
    table = pd.DataFrame(parts)
    return table.loc[[name for name in order if name in table.index]].rename_axis("category")


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
