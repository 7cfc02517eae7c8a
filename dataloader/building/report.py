"""The report of a build: the comparison with the published gym, gym_report.csv, and the printed summary."""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.building.recipe import Recipe
from dataloader.building.task_folder import sample_files, sources_of
from dataloader.errors import in_short
from dataloader.gym import PARTS

REPORT = "gym_report.csv"
PUBLISHED = Path(__file__).with_name("published_md5sums.csv")

VERIFIED = "verified"
DIFFERS = "differs"
UNCOMPARED = "built, not compared"
UNAVAILABLE = "unavailable"
SOURCE_GONE = "unavailable, the source is gone"
MISSING = (UNAVAILABLE, SOURCE_GONE)
OUTCOMES = (VERIFIED, DIFFERS, UNCOMPARED, *MISSING)


@dataclass(frozen=True)
class Line:
    """One line of the report. train, dev, test: number of files equal to the published ones, as in 5/5."""

    task: str
    outcome: str
    train: str = ""
    dev: str = ""
    test: str = ""
    source: str = ""
    terms: str = ""
    note: str = ""


@cache
def published_sums() -> dict[str, str]:
    """Returns the MD5 sum of each of the 2,400 published files."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row["md5"] for row in csv.DictReader(file)}


def line_of(recipe: Recipe, gym: Path, samples: Sequence[int], verify: bool) -> Line:
    """Returns the report's line of a task that has been built, from its files."""
    sources = sources_of(gym / recipe.task)
    source = " and ".join(dict.fromkeys(sources[str(seed)] for seed in samples if str(seed) in sources))
    equal: dict[str, list[bool]] = {part: [] for part in PARTS}
    for seed in samples:
        for part, path in zip(PARTS, sample_files(recipe, gym, seed), strict=True):
            if verify and (expected := published_sums().get(path.name)):
                actual = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                equal[part].append(actual == expected)
    compared = [file for files in equal.values() for file in files]
    outcome = UNCOMPARED if not compared else VERIFIED if all(compared) else DIFFERS
    counts = {part: f"{sum(files)}/{len(files)}" for part, files in equal.items() if files}
    return Line(recipe.task, outcome, source=source, terms=recipe.terms, **counts)


def unavailable(recipe: Recipe, reason: str) -> Line:
    """Returns the line of a task that could not be built."""
    outcome = SOURCE_GONE if recipe.gone else UNAVAILABLE
    return Line(recipe.task, outcome, terms=recipe.terms, note=reason)


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
    try:
        with (gym / REPORT).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["task"]: {field.name: row[field.name] for field in fields(Line)} for row in rows}
    except (FileNotFoundError, UnicodeDecodeError, csv.Error, KeyError):
        return {}


def summary(lines: Sequence[Line]) -> str:
    """Returns why tasks were not built, and the number of tasks of each outcome, as text."""
    ordered = sorted(lines, key=lambda line: line.task)
    text = [f"{line.task}: {line.note}" for line in ordered if line.note]
    for outcome in OUTCOMES:
        if tasks := [line.task for line in ordered if line.outcome == outcome]:
            names = f": {in_short(tasks)}" if outcome in MISSING else ""
            text.append(f"{len(tasks):4} {outcome}{names}")
    return "\n".join([*text, f"{len(lines):4} tasks"])


def terms_of_use(recipes: Iterable[Recipe]) -> list[str]:
    """Returns the conditions of use of the data sets, one line for the tasks that share them."""
    tasks: dict[str, list[str]] = {}
    for recipe in recipes:
        if recipe.terms:
            tasks.setdefault(recipe.terms, []).append(recipe.task)
    return [f"terms of use of {', '.join(names)}: {terms}" for terms, names in tasks.items()]
