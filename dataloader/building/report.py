"""The report of a build: the comparison with the published gym, gym_report.csv, and the printed summary."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.building.recipe import Recipe
from dataloader.building.task_folder import sample_files, sources_of
from dataloader.gym import PARTS

REPORT = "gym_report.csv"
PUBLISHED = Path(__file__).with_name("published_md5sums.csv")

VERIFIED = "verified"
DIFFERS = "differs"
UNCOMPARED = "built, not compared"
UNAVAILABLE = "unavailable"
SOURCE_GONE = "unavailable, the source is gone"
MISSING = (UNAVAILABLE, SOURCE_GONE)


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


def line_of(recipe: Recipe, gym: Path, samples: Sequence[int]) -> Line:
    """Returns the report's line of a task that has been built, from its files."""
    sources = sources_of(gym / recipe.task)
    source = " and ".join(dict.fromkeys(sources[str(seed)] for seed in samples if str(seed) in sources))
    equal: dict[str, list[bool]] = {part: [] for part in PARTS}  # whether each file is the published one
    for seed in samples:
        for part, path in zip(PARTS, sample_files(recipe, gym, seed), strict=True):
            if expected := published_sums().get(path.name):
                actual = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                equal[part].append(actual == expected)
    compared = [file for files in equal.values() for file in files]
    outcome = UNCOMPARED if not compared else VERIFIED if all(compared) else DIFFERS
    counts = {part: f"{sum(files)}/{len(files)}" for part, files in equal.items() if files}
    return Line(recipe.task, outcome, source=source, terms=recipe.terms, **counts)


def unavailable(recipe: Recipe, reason: str) -> Line:
    """Returns the line of a task that could not be built."""
    return Line(recipe.task, SOURCE_GONE if recipe.gone else UNAVAILABLE, terms=recipe.terms, note=reason)


def write_report(gym: Path, lines: Sequence[Line]) -> None:
    """Writes gym_report.csv, sorted by task; lines of other tasks that are in the file remain."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Line)], lineterminator="\n")
    writer.writeheader()
    by_task = read_report(gym) | {line.task: line for line in lines}
    writer.writerows(asdict(by_task[task]) for task in sorted(by_task))
    write_text(gym / REPORT, text.getvalue())


def read_report(gym: Path) -> dict[str, Line]:
    """Returns the lines of the report by task; {} if there is no report that can be read."""
    try:
        with (gym / REPORT).open(encoding="utf-8", newline="") as file:
            return {row["task"]: Line(**row) for row in csv.DictReader(file)}
    except (FileNotFoundError, UnicodeDecodeError, csv.Error, KeyError, TypeError):
        return {}


def summary(lines: Sequence[Line]) -> str:
    """Returns why tasks were not built, and the number of tasks of each outcome, as text."""
    reasons = sorted(f"{line.task}: {line.note}" for line in lines if line.note)
    counts = Counter(line.outcome for line in lines).items()
    return "\n".join([*reasons, *(f"{n:4} {outcome}" for outcome, n in counts), f"{len(lines):4} tasks"])
