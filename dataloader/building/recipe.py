"""Recipe: where a task's rows come from, how a row becomes an example, and how examples are sampled.

    recipe = classification(
        "glue-mrpc",
        Hub("nyu-mll/glue", "mrpc"),
        input="sentence 1: {sentence1} [SEP] sentence 2: {sentence2}",
        output=word("label", "not_equivalent", "equivalent"),
    )

`input` and `output` are format strings over the columns of a row, or functions of a row. Every source of a
recipe yields rows with the columns of the Hugging Face data set that CrossFit read in 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dataloader.building.sources import Row, Source

TextOf = str | Callable[[Row], str]
Cut = Callable[[list, list | None], tuple[list, list]]  # rows of both splits -> (pool, test)

SEED = 42  # of every draw that is the same for all samples


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to build one task.

    sources: alternatives, in the order in which they are tried.
    input, output: the text before the first tab of a line, and the text after it: the accepted answers,
        separated by tabs.
    by_label: classification: k rows of every output; otherwise k rows in total.
    splits: (few-shot split, test split) of the data set, or one split that is cut into both.
    keep: whether a row is used; None: all are.
    prepare: makes the rows of a split from those of the data set, with a generator seeded with SEED: merges
        rows, or draws an order of options. It is applied after `keep`. None: no change.
    cut: makes the pool of few-shot rows and the test rows from the rows of the splits (`sampling.py`); None:
        `whole_splits` for two splits, `eighty_twenty` for one.
    answers_are_a_set: the published run did not fix the order of a row's answers.
    options: the answers to choose from; the task's files are then JSON lines.
    metric: name of the task's metric; None: that of the published gym.
    terms: conditions of use to be named when the data is downloaded; "": none are known.
    elsewhere: where else to look for the data if no source has it.
    gone: the sources are known to be gone: a build without this task is complete.
    """

    task: str
    sources: tuple[Source, ...]
    input: TextOf
    output: TextOf
    by_label: bool
    k: int
    splits: tuple[str, ...] = ("train", "validation")
    keep: Callable[[Row], bool] | None = None
    prepare: Callable[[Iterable[Row], np.random.RandomState], Iterable[Row]] | None = None
    cut: Cut | None = None
    answers_are_a_set: bool = False
    options: Callable[[Row], Sequence[str]] | None = None
    metric: str | None = None
    terms: str = ""
    elsewhere: str = ""
    gone: bool = False

    def prepared(self, rows: Iterable[Row]) -> Iterable[Row]:
        """Returns the rows that become examples, in order."""
        rows = rows if self.keep is None else filter(self.keep, rows)
        return rows if self.prepare is None else self.prepare(rows, np.random.RandomState(SEED))

    def example(self, row: Row) -> tuple[str, str] | tuple[str, str, tuple[str, ...]]:
        """Returns (input, output) of a prepared row, and its options if the recipe has them.

        Raises various errors if the row does not have the expected columns.
        """
        texts = render(self.input, row), render(self.output, row)
        return texts if self.options is None else (*texts, tuple(self.options(row)))


def render(text: TextOf, row: Row) -> str:
    """Returns the text of a row. Raises TypeError if a function returns something else."""
    rendered = text.format_map(row) if isinstance(text, str) else text(row)
    if not isinstance(rendered, str):
        raise TypeError(f"the recipe returned {rendered!r} in place of a text")
    return rendered


def classification(task: str, *sources: Source, **fields) -> Recipe:
    """Returns a recipe that samples 16 rows of every label; fields: those of `Recipe`."""
    return Recipe(task=task, sources=sources, by_label=True, **{"k": 16, **fields})


def text_to_text(task: str, *sources: Source, **fields) -> Recipe:
    """Returns a recipe that samples 32 rows; fields: those of `Recipe`."""
    return Recipe(task=task, sources=sources, by_label=False, **{"k": 32, **fields})
