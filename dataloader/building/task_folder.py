"""Builds the folder of one task from its recipe."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataloader.atomic_files import remove_unfinished, unfinished_folder, write_bytes, write_text
from dataloader.building.downloads import Files, Unavailable
from dataloader.building.recipe import Examples, Recipe, Row, Source, draw_sample
from dataloader.errors import in_brief
from dataloader.gym import PARTS, PROVENANCE
from dataloader.jsonfile import load_json_object


class NotBuilt(Exception):
    """A task cannot be built; the message says why, for each source."""


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
        write_task(gym / recipe.task, contents, missing, rows.source)


# ---------------------------------------------------------------------------- rows to examples


def read_rows(recipe: Recipe, files: Files) -> Rows:
    """Returns the examples of a task from the first source that has all its splits. Raises NotBuilt."""
    reasons: list[str] = []
    for source in recipe.sources:
        try:
            splits = [read_examples(recipe, source, split, files) for split in recipe.splits]
            pool, test = recipe.pool_and_test(*splits)
            if pool and test:
                return Rows(pool, test, str(source))
            reasons.append(f"{source}: no rows")
        except Unavailable as error:
            reasons.append(str(error))
        except OSError as error:  # such as a full disk
            reasons.append(f"{source}: {error.strerror or in_brief(error)} ({error.filename or 'download'})")
    raise NotBuilt("; ".join(dict.fromkeys(reasons)))


def read_examples(recipe: Recipe, source: Source, split: str, files: Files) -> Examples:
    """Returns the examples of a split. Raises Unavailable, also for a row that is not as expected."""
    number = 0

    def counted() -> Iterator[Row]:
        nonlocal number
        for row in source.rows(split, files):
            number += 1
            yield row

    try:
        return [recipe.example(row) for row in recipe.prepared(counted())]
    except (Unavailable, OSError, MemoryError):
        raise
    except Exception as error:  # of readers and templates, which expect columns and formats
        problem = f"no column or key {error}" if isinstance(error, KeyError) else in_brief(error)
        raise Unavailable(f"{source}, {split}, row {number}: unexpected content: {problem}") from None


# ---------------------------------------------------------------------------- examples to files


def missing_samples(recipe: Recipe, gym: Path, samples: Sequence[int]) -> list[int]:
    return [seed for seed in samples if not all(path.exists() for path in sample_files(recipe, gym, seed))]


def sample_files(recipe: Recipe, gym: Path, seed: int) -> list[Path]:
    """Returns the paths of the train, dev and test file of a sample."""
    ending = "tsv" if recipe.options is None else "jsonl"
    stem = f"{recipe.task}_{recipe.k}_{seed}"
    return [gym / recipe.task / f"{stem}_{part}.{ending}" for part in PARTS]


def sample_contents(recipe: Recipe, rows: Rows, gym: Path, samples: Sequence[int]) -> dict[Path, bytes]:
    """Returns {path: content} of the files of the samples. Raises NotBuilt if there are too few rows."""
    contents: dict[Path, bytes] = {}
    test = content_of(recipe, rows.test)  # the same for all samples
    for seed in samples:
        train, dev = draw_sample(rows.pool, recipe.k, recipe.by_label, seed)
        if not train or not dev:
            raise NotBuilt(f"{rows.source}: too few rows ({len(rows.pool)}) for a train and a dev file")
        parts = (content_of(recipe, train), content_of(recipe, dev), test)
        contents.update(zip(sample_files(recipe, gym, seed), parts, strict=True))
    return contents


def content_of(recipe: Recipe, examples: Examples) -> bytes:
    """Returns the bytes of a file: TSV lines as published, or JSON lines if the recipe has options."""
    if recipe.options is None:
        return "".join(f"{source}\t{output}\n" for source, output in examples).encode()
    lines = (
        {"input": source, "outputs": output.split("\t")} | further for source, output, further in examples
    )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def write_task(
    folder: Path, contents: dict[Path, bytes], samples: Sequence[int], source: str, template: str | dict = ""
) -> None:
    """Writes the files of samples to the folder of their task. Raises NotBuilt; then nothing is written.

    A new task appears at once; in a folder that exists, file by file.
    contents: {path: content}; source: where the rows of these samples come from; template: of their inputs.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        with unfinished_folder(folder) as unfinished:
            built = unfinished / folder.name
            built.mkdir()
            for path, content in contents.items():
                write_bytes(built / path.name, content)
            all_sources = sources_of(folder) | dict.fromkeys(map(str, samples), source)
            all_sources |= {"input": template} if template else {}
            write_text(built / PROVENANCE, json.dumps(dict(sorted(all_sources.items())), indent=2) + "\n")
            if not folder.exists():
                os.rename(built, folder)
            else:
                for path in built.iterdir():
                    os.replace(path, folder / path.name)
    except OSError as error:
        raise NotBuilt(f"{folder} cannot be written ({error.strerror})") from None


def sources_of(folder: Path) -> dict[str, str]:
    """Returns {seed: source} of a task's samples; {} if the folder was not made by this command."""
    path = folder / PROVENANCE
    content = load_json_object(path, "sources of samples") if path.exists() else {}
    return {seed: source for seed, source in content.items() if seed != "input"}
