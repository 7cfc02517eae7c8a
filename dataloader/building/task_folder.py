"""Builds the folder of one task from its recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dataloader.atomic_files import remove_unfinished, unfinished_folder, write_bytes, write_text
from dataloader.building.downloads import Files, Unavailable
from dataloader.building.recipe import Recipe
from dataloader.building.sampling import draw_sample, eighty_twenty, whole_splits
from dataloader.building.sources import Source
from dataloader.errors import InputError, in_brief
from dataloader.gym import PARTS
from dataloader.jsonfile import load_json_object

PROVENANCE = "source.json"  # in each task's folder: {seed: source that the rows of the sample come from}

Examples = list[tuple]  # (input, output) or (input, output, options)


class NotBuilt(Exception):
    """A task cannot be built.

    reasons: why not, per source. test: the test examples, if some source has them.
    """

    def __init__(self, reasons: list[str], test: Examples | None = None):
        # What is only missing in a mirror comes last.
        super().__init__(
            "; ".join(sorted(dict.fromkeys(reasons), key=lambda reason: " is not in " in reason))
        )
        self.test = test


@dataclass(frozen=True)
class Rows:
    """The examples of a task before sampling, and the source that they come from."""

    pool: Examples
    test: Examples
    source: str


def build_task(recipe: Recipe, files: Files, gym: Path, samples: Sequence[int]) -> None:
    """Writes the missing samples of a task. Raises NotBuilt; then nothing is written."""
    if missing := missing_samples(recipe, gym, samples):
        rows = read_rows(recipe, files)
        contents = sample_contents(recipe, rows, gym, missing)
        write_task(gym / recipe.task, contents, dict.fromkeys(missing, rows.source))


def sample_contents(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int]) -> dict[Path, bytes]:
    """Returns {path: content} of the files of the samples. Raises NotBuilt if there are too few rows."""
    contents: dict[Path, bytes] = {}
    test = content_of(recipe, rows.test)  # the same for all samples
    for seed in samples:
        train, dev = draw_sample(rows.pool, recipe.k, recipe.by_label, seed)
        if not train or not dev:
            raise NotBuilt([f"{rows.source}: too few rows ({len(rows.pool)}) for a train and a dev file"])
        parts = (content_of(recipe, train), content_of(recipe, dev), test)
        contents.update(zip(sample_files(recipe, gym, seed), parts, strict=True))
    return contents


def write_task(folder: Path, contents: dict[Path, bytes], sources: dict[int, str]) -> None:
    """Writes the files of samples to the folder of their task. Raises NotBuilt; then nothing is written.

    contents: {path: content}; sources: {seed: source of the sample's rows}.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        with unfinished_folder(folder) as unfinished:
            built = unfinished / folder.name
            built.mkdir()
            for path, content in contents.items():
                write_bytes(built / path.name, content)
            every = sources_of(folder) | {str(seed): source for seed, source in sources.items()}
            write_text(built / PROVENANCE, json.dumps(dict(sorted(every.items())), indent=2) + "\n")
            publish(built, folder)
    except OSError as error:
        raise NotBuilt([f"{folder} cannot be written ({error.strerror})"]) from None


def sources_of(folder: Path) -> dict[str, str]:
    """Returns {seed: source} of a task's samples; {} if the folder was not made by this command."""
    try:
        return {
            seed: str(source) for seed, source in load_json_object(folder / PROVENANCE, "sources").items()
        }
    except InputError:
        return {}


def missing_samples(recipe: Recipe, gym: Path, samples: Sequence[int]) -> list[int]:
    return [seed for seed in samples if not all(path.exists() for path in sample_files(recipe, gym, seed))]


def publish(built: Path, folder: Path) -> None:
    """Moves the finished files of a task to its folder: at once if the task is new, else file by file."""
    if not folder.exists():
        os.rename(built, folder)
        return
    for path in built.iterdir():
        os.replace(path, folder / path.name)


def sample_files(recipe: Recipe, gym: Path, seed: int) -> list[Path]:
    """Returns the paths of the train, dev and test file of a sample."""
    ending = "tsv" if recipe.options is None else "jsonl"
    stem = f"{recipe.task}_{recipe.k}_{seed}"
    return [gym / recipe.task / f"{stem}_{part}.{ending}" for part in PARTS]


def content_of(recipe: Recipe, examples: Examples) -> bytes:
    """Returns the bytes of a file: TSV lines as published, or JSON lines if the recipe has options."""
    if recipe.options is None:
        return "".join(f"{source}\t{output}\n" for source, output in examples).encode()
    lines = (
        {"input": source, "outputs": output.split("\t"), "options": list(options)}
        for source, output, options in examples
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


# ---------------------------------------------------------------------------- rows to examples


def read_rows(recipe: Recipe, files: Files) -> Rows:
    """Returns the examples of a task from the first source that has all its splits. Raises NotBuilt."""
    reasons: list[str] = []
    test: Examples | None = None
    for source in recipe.sources:
        splits, problems = read_splits(recipe, source, files)
        reasons += problems
        if not problems:
            pool, *rest = (splits[split] for split in recipe.splits)
            cut = recipe.cut or (whole_splits if rest else eighty_twenty)
            rows = Rows(*cut(pool, rest[0] if rest else None), str(source))
            if rows.pool and rows.test:
                return rows
            reasons.append(f"{source}: no rows")
        elif test is None and len(recipe.splits) == 2 and recipe.splits[1] in splits:
            test = (recipe.cut or whole_splits)([], splits[recipe.splits[1]])[1]
    if recipe.elsewhere:
        reasons.append(recipe.elsewhere)
    raise NotBuilt(reasons, test)


def read_splits(recipe: Recipe, source: Source, files: Files) -> tuple[dict[str, Examples], list[str]]:
    """Returns the examples of each split that can be read, and why others cannot."""
    splits: dict[str, Examples] = {}
    problems: list[str] = []
    for split in recipe.splits:
        try:
            read = partial(source.rows, split, files)
            splits[split] = to_examples(recipe, read, f"{source}, {split}")
        except Unavailable as error:
            problems.append(str(error))
        except OSError as error:  # such as a full disk
            problems.append(f"{source}: {error.strerror or in_brief(error)} ({error.filename or 'download'})")
        if problems and not files.offline:
            break  # the other split would be downloaded for nothing
    return splits, problems


def to_examples(recipe: Recipe, read: Callable[[], Iterable[dict]], source: str) -> Examples:
    """Returns the examples of the rows that `read` yields.

    Raises Unavailable if they cannot be read, or if a row is not as the recipe expects.
    """
    number, latest = 0, None

    def counted() -> Iterator[dict]:
        nonlocal number, latest
        for number, latest in enumerate(read(), start=1):  # noqa: B007 (read when a row is wrong)
            yield latest

    try:
        return [recipe.example(row) for row in recipe.prepared(counted())]
    except (Unavailable, OSError, MemoryError):
        raise
    except Exception as error:  # of readers and templates, which expect columns and formats
        where = f"{source}, row {number}" if number else source
        raise Unavailable(f"{where}: {explained(error, latest)}") from None


def explained(error: Exception, row: dict | None) -> str:
    """Returns what is wrong with a row, with its columns."""
    columns = f" (its columns: {', '.join(map(str, row))})" if isinstance(row, dict) else ""
    if isinstance(error, KeyError):
        return f"no column or key {error.args[0]!r}{columns}"
    return f"unexpected content: {in_brief(error)}{columns}"
