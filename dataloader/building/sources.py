"""Sources of rows: the parquet files of a Hugging Face data set, or raw files by URL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dataloader.building.downloads import Files, Unavailable
from dataloader.building.raw_file import RawFile

Row = dict  # column -> value

ARCHIVE_MEMBER = "!"  # "https://host/archive.zip!folder/file" is a member of the archive


class Source(Protocol):
    def rows(self, split: str, files: Files) -> Iterable[Row]:
        """Yields the rows of a split in order. Raises Unavailable."""


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub, read from parquet files.

    config: name of the configuration; "": the only one, or "default".
    columns: columns to read, for data sets with large ones that are not needed; (): all.
    adapt: changes a row to the columns that the recipe reads; None: they are the same.
    splits: names of splits on the hub that differ from those of the recipe.
    """

    repository: str
    config: str = ""
    columns: tuple[str, ...] = ()
    adapt: Callable[[Row], Row] | None = None
    splits: tuple[tuple[str, str], ...] = ()

    def rows(self, split: str, files: Files) -> Iterator[Row]:
        paths = files.parquet(self.repository, self.config, dict(self.splits).get(split, split))
        for path in paths:
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

    def __init__(
        self,
        read: Callable[..., Iterable[Row]],
        *,
        every: str | tuple[str, ...] = (),
        **splits: str | tuple[str, ...],
    ):
        self.read = read
        self.every = as_tuple(every)
        self.splits = {split: as_tuple(urls) for split, urls in splits.items()}

    def urls(self, split: str) -> tuple[str, ...]:
        """Returns the URLs of a split, with their members. Raises Unavailable for an unknown split."""
        urls = self.splits.get(split, self.every)
        if not urls:
            raise Unavailable(f"{self} has no split {split} (it has {', '.join(self.splits)})")
        return urls

    def rows(self, split: str, files: Files) -> Iterable[Row]:
        return self.read(split, *[self._open(url, files) for url in self.urls(split)])

    def _open(self, url: str, files: Files) -> RawFile:
        address, _, member = url.partition(ARCHIVE_MEMBER)
        return RawFile(files.raw(address), member)

    def __str__(self) -> str:
        return next(iter((*self.every, *(urls[0] for urls in self.splits.values()))))


def as_tuple(urls: str | tuple[str, ...]) -> tuple[str, ...]:
    return (urls,) if isinstance(urls, str) else tuple(urls)
