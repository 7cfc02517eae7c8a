"""Recipe: where a task's rows come from, how a row becomes an example, and how examples are sampled.

    recipe = classification(
        "glue-mrpc",
        Hub("nyu-mll/glue", "mrpc"),
        input="sentence 1: {sentence1} [SEP] sentence 2: {sentence2}",
        output=word("label", "not_equivalent", "equivalent"),
    )

`input` and `output` are format strings over the columns of a row, or functions of a row. Every source of a
recipe yields rows with the columns of the Hugging Face data set that CrossFit read in 2021.

All shuffles are those of numpy's legacy generator, `RandomState(seed).shuffle`, of a list.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dataloader.building.downloads import Files, Unavailable
from dataloader.building.raw_file import RawFile

Row = dict  # column -> value
TextOf = str | Callable[[Row], str]
Examples = list[tuple]  # (input, output), or (input, output, {key: value} of its JSON line)
SplitRule = Callable[[list, list | None], tuple[list, list]]  # rows of both splits -> (pool, test)

SEED = 42  # of every draw that is the same for all samples
SAMPLES = (100, 13, 21, 42, 87)  # the published seeds
ARCHIVE_MEMBER = "!"  # "https://host/archive.zip!folder/file" is a member of the archive


# ---------------------------------------------------------------------------- sources


class Source(Protocol):
    def rows(self, split: str, files: Files) -> Iterable[Row]:
        """Yields the rows of a split in order. Raises Unavailable."""


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub, read from parquet files.

    config: name of the configuration; "": the only one, or "default". columns: those to read; (): all.
    adapt: changes a row to the columns that the recipe reads; None: they are the same.
    """

    repository: str
    config: str = ""
    columns: tuple[str, ...] = ()
    adapt: Callable[[Row], Row] | None = None

    def rows(self, split: str, files: Files) -> Iterator[Row]:
        for path in files.parquet(self.repository, self.config, split):
            for row in parquet_rows(path, self.columns):
                # In 2021 data sets had empty texts where some have nulls today.
                row = {column: "" if value is None else value for column, value in row.items()}
                yield row if self.adapt is None else self.adapt(row)

    def __str__(self) -> str:
        return f"hub data set {self.repository}" + (f", {self.config}" if self.config else "")


def parquet_rows(path: Path, columns: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yields the rows of a parquet file. Raises Unavailable if it is not one."""
    import pyarrow  # imported late: half of the commands that import a recipe read no parquet
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=list(columns) or None):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise Unavailable(f"{path} cannot be read as parquet ({error})") from None


class Raw:
    """Raw files by URL, and the function that reads them.

    Raw(read, train=url, validation=url): each split has its own files, one URL or a tuple of them.
    Raw(read, every=url): all splits are read from the same files.
    read(split, file, ...): yields the rows of the split from the split's files.
    A URL with "!" names a member of an archive: "https://host/data.zip!data/train.tsv".
    """

    def __init__(self, read: Callable[..., Iterable[Row]], *, every=(), **splits: str | tuple[str, ...]):
        self.read = read
        self.every = (every,) if isinstance(every, str) else every
        self.splits = {split: (url,) if isinstance(url, str) else url for split, url in splits.items()}

    def urls(self, split: str) -> tuple[str, ...]:
        return self.splits.get(split, self.every)

    def rows(self, split: str, files: Files) -> Iterable[Row]:
        opened = []
        for url in self.urls(split):
            address, _, member = url.partition(ARCHIVE_MEMBER)
            opened.append(RawFile(files.raw(address), member))
        return self.read(split, *opened)

    def __str__(self) -> str:
        return next(iter((*self.every, *(urls[0] for urls in self.splits.values()))))


# ---------------------------------------------------------------------------- recipes


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
    split_rule: makes the pool of few-shot rows and the test rows from the rows of the splits; None: all rows
        of two splits, `eighty_twenty` of one.
    options: the answers to choose from; the task's files are then JSON lines.
    metric: name of the task's metric; None: that of the published gym.
    terms: conditions of use to be named when the data is downloaded; "": none are known.
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
    split_rule: SplitRule | None = None
    options: Callable[[Row], Sequence[str]] | None = None
    metric: str | None = None
    terms: str = ""
    gone: bool = False

    def prepared(self, rows: Iterable[Row]) -> Iterable[Row]:
        """Returns the rows that become examples, in order."""
        rows = rows if self.keep is None else filter(self.keep, rows)
        return rows if self.prepare is None else self.prepare(rows, np.random.RandomState(SEED))

    def example(self, row: Row) -> tuple[str, str] | tuple[str, str, dict]:
        """Returns (input, output) of a prepared row, and its options if it has some. May raise any error."""
        texts = render(self.input, row), render(self.output, row)
        return texts if self.options is None else (*texts, {"options": list(self.options(row))})

    def pool_and_test(self, rows: list, test: list | None = None) -> tuple[list, list]:
        """Returns the pool of few-shot rows and the test rows. test: rows of the second split, if any."""
        if self.split_rule is None:
            return (rows, test) if test is not None else eighty_twenty(rows, None)
        return self.split_rule(rows, test)


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


# ---------------------------------------------------------------------------- cuts and samples


def shuffled(rows: list, seed: int) -> list:
    """Returns the rows in another order; `rows` stays as it is."""
    order = np.arange(len(rows))  # indices are shuffled like the list itself, but faster
    np.random.RandomState(seed).shuffle(order)
    return [rows[index] for index in order]


def test_share(share: float) -> SplitRule:
    """Returns the rule for two splits that keeps a random share of the test split."""
    return lambda rows, test: (rows, shuffled(test, SEED)[: int(share * len(test))])


def one_split(pool: Callable[[int], slice], test: Callable[[int], slice]) -> SplitRule:
    """Returns the rule for a single split: slices of its shuffled rows. The functions get their number."""

    def divided(rows: list, _: list | None) -> tuple[list, list]:
        order = shuffled(rows, SEED)
        return order[pool(len(order))], order[test(len(order))]

    return divided


eighty_twenty = one_split(lambda n: slice(int(0.8 * n)), lambda n: slice(int(0.8 * n), None))


def draw_sample(pool: Examples, k: int, by_label: bool, seed: int) -> tuple[Examples, Examples]:
    """Returns the (train, dev) examples of a sample.

    by_label: the first k examples of every output are for training and the next k for dev, outputs in order
    of first appearance in the shuffled pool; otherwise the first k of the shuffled pool, and the next k.
    """
    order = shuffled(pool, seed)
    if not by_label:
        return order[:k], order[k : 2 * k]
    groups: dict[str, Examples] = {}
    for example in order:
        groups.setdefault(example[1], []).append(example)
    train = [example for group in groups.values() for example in group[:k]]
    dev = [example for group in groups.values() for example in group[k : 2 * k]]
    return train, dev
