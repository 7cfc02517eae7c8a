"""The report of a build: gym_report.csv, and the printed table of outcomes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.building.recipe import Recipe
from dataloader.building.task_folder import NotBuilt, content_of, sample_files, sources_of
from dataloader.building.verification import (
    EQUAL,
    REORDERED,
    UNDECIDED,
    compare,
    published_sums,
)
from dataloader.errors import InputError, in_short
from dataloader.gym import PARTS
from dataloader.task_files import read_task_file

REPORT = "gym_report.csv"
LONGEST_NOTE = 160  # characters that the table shows

VERIFIED = "verified"
SAME_ROWS = "same rows, order of answers differs"
PARTLY = "verified in part, too many orders of answers in the rest"
FORMAT_ONLY = "format only"
UNCOMPARED = "built, not compared"
UNAVAILABLE = "unavailable"
SOURCE_GONE = "unavailable, the source is gone"
MISSING = (UNAVAILABLE, SOURCE_GONE)
OUTCOMES = (VERIFIED, SAME_ROWS, PARTLY, FORMAT_ONLY, UNCOMPARED, *MISSING)


@dataclass(frozen=True)
class Line:
    """One line of the report.

    train, dev, test: number of files that are equal to the published ones, of how many compared: "5/5".
    malformed: number of lines that the loader of this project reports, in the first sample's files.
    """

    task: str
    outcome: str
    train: str = ""
    dev: str = ""
    test: str = ""
    malformed: int = 0
    source: str = ""
    terms: str = ""
    note: str = ""


def line_of(recipe: Recipe, gym: Path, samples: Sequence[int], verify: bool) -> Line:
    """Returns the report's line of a task that has been built, from its files."""
    malformed, problems = unusable_lines(sample_files(recipe, gym, samples[0]))
    sources = sources_of(gym / recipe.task)
    source = " and ".join(dict.fromkeys(sources[str(seed)] for seed in samples if str(seed) in sources))
    line = dict(task=recipe.task, malformed=malformed, source=source, terms=recipe.terms)
    paths = [path for seed in samples for path in sample_files(recipe, gym, seed)]
    published = [path for path in paths if path.name in published_sums()]
    if not verify or not published:
        return Line(outcome=UNCOMPARED, note="; ".join(problems), **line)
    results = {path: compare(path.name, path.read_bytes(), recipe.answers_are_a_set) for path in published}
    counts = {part: _count(results, part) for part in PARTS}
    notes = [*problems, *_notes(results)]
    return Line(outcome=outcome_of(results.values()), note="; ".join(notes), **line, **counts)


def unusable_lines(paths: Sequence[Path]) -> tuple[int, list[str]]:
    """Returns how many lines the loader skips with --skip_malformed, and why whole files cannot be used."""
    count, problems = 0, []
    for path in paths:
        try:
            count += read_task_file(path, skip_malformed=True)[1]
        except InputError as error:  # such as an empty file, if a label has fewer rows than a sample needs
            problems.append(str(error))
    return count, problems


def outcome_of(results: Iterable[str]) -> str:
    """Returns the outcome of a task from the comparisons of its files."""
    kinds = set(results)
    if kinds == {EQUAL}:
        return VERIFIED
    if kinds <= {EQUAL, REORDERED}:
        return SAME_ROWS
    return PARTLY if kinds <= {EQUAL, REORDERED, UNDECIDED} and kinds != {UNDECIDED} else FORMAT_ONLY


def _count(results: dict[Path, str], part: str) -> str:
    of_part = [result for path, result in results.items() if path.stem.endswith(part)]
    return f"{of_part.count(EQUAL)}/{len(of_part)}"


def _notes(results: dict[Path, str]) -> list[str]:
    undecided = [path.stem for path, result in results.items() if result == UNDECIDED]
    parts = [part for part in PARTS if any(name.endswith(part) for name in undecided)]
    reordered = sum(result == REORDERED for result in results.values())
    notes = [f"{reordered} files are equal with answers in another order"] if reordered else []
    if parts:
        notes.append(f"not compared: {', '.join(parts)} (too many orders of answers)")
    return notes


def unavailable(recipe: Recipe, error: NotBuilt, samples: Sequence[int], verify: bool) -> Line:
    """Returns the line of a task that could not be built; test rows are compared if a source has them."""
    counts, note = {}, str(error)
    if error.test is not None and verify and recipe.options is None:
        names = [path.name for path in (sample_files(recipe, Path(), seed)[2] for seed in samples)]
        if all(name in published_sums() for name in names):
            content = content_of(recipe, error.test)
            results = [compare(name, content, recipe.answers_are_a_set) for name in names]
            counts = {"test": f"{results.count(EQUAL)}/{len(results)}"}
    outcome = SOURCE_GONE if recipe.gone else UNAVAILABLE
    return Line(recipe.task, outcome, terms=recipe.terms, note=note, **counts)


def write_report(gym: Path, lines: Sequence[Line]) -> None:
    """Writes gym_report.csv, sorted by task; lines of other tasks that are in the file remain."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Line)], lineterminator="\n")
    writer.writeheader()
    by_task = {**read_report(gym), **{line.task: asdict(line) for line in lines}}
    writer.writerows(by_task[task] for task in sorted(by_task))
    write_text(gym / REPORT, text.getvalue())


def read_report(gym: Path) -> dict[str, dict[str, str]]:
    """Returns the lines of the report by task; {} if there is no report that can be read."""
    names = [field.name for field in fields(Line)]
    try:
        with (gym / REPORT).open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            return {row["task"]: row for row in rows} if rows.fieldnames == names else {}
    except (FileNotFoundError, UnicodeDecodeError, csv.Error):
        return {}


def table(lines: Sequence[Line]) -> str:
    """Returns the outcomes as text: a row per task, how notes begin, the numbers of tasks, missing ones."""
    ordered = sorted(lines, key=lambda line: line.task)
    width = max((len(line.task) for line in lines), default=0)
    rows = [f"{'task':{width}}  train   dev  test  outcome"]
    rows += [
        f"{line.task:{width}}  {line.train:>5} {line.dev:>5} {line.test:>5}  {line.outcome}"
        for line in ordered
    ]
    notes = [f"{line.task}: {beginning(line.note)}" for line in ordered if line.note]
    by_outcome = {each: [line.task for line in ordered if line.outcome == each] for each in OUTCOMES}
    summary = [
        f"{len(tasks):4} {outcome}" + (f": {in_short(tasks)}" if outcome in MISSING else "")
        for outcome, tasks in by_outcome.items()
        if tasks
    ]
    blocks = [rows, notes, [*summary, f"{len(lines):4} tasks"]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def beginning(note: str) -> str:
    """Returns a note, or its first part if it is long."""
    return note if len(note) <= LONGEST_NOTE else f"{note.split('; ')[0]}; ... (more in {REPORT})"


def terms_of_use(recipes: Iterable[Recipe]) -> list[str]:
    """Returns the conditions of use of the data sets, one line for the tasks that share them."""
    tasks: dict[str, list[str]] = {}
    for recipe in recipes:
        if recipe.terms:
            tasks.setdefault(recipe.terms, []).append(recipe.task)
    return [f"terms of use of {', '.join(names)}: {terms}" for terms, names in tasks.items()]
