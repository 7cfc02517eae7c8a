"""Add a task to a gym: samples, metric and place in the split, from a table or a data set on the hub.

    routing-moe add-task --gym my_gym --name my_reviews --from reviews.csv \\
        --input "review: {text}" --output "{stars}" --metric ACC
    routing-moe add-task --gym my_gym --name my_questions --from questions.jsonl --test_from test.jsonl \\
        --input "question: {q} context: {passage}" --output "{answers}" --metric QA-F1 --k 32 --section test
    routing-moe add-task --gym my_gym --name sst2 --from hub:nyu-mll/glue:sst2 \\
        --test_from hub:nyu-mll/glue:sst2:validation --input "{sentence}" --output "{label}" --metric ACC
    routing-moe train --train_dir my_gym --total_steps 2000 --output_dir models/own

The last one trains bart-base on the gym; its default of 30,000 steps is for CrossFit's 120 train tasks.

Writes <gym>/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv (.jsonl with --options), and adds the task to
metrics.json and split.json. A task that is there is not overwritten; the same command again completes what an
interrupted one has left. Exits with 0; with 2 if nothing was added; with 130 after Ctrl-C.
"""

import re
import sys
from pathlib import Path

from dataloader.building.downloads import Downloads, Files
from dataloader.building.gym_files import GymFiles
from dataloader.building.own_task import (
    Prepared,
    add_to_gym,
    answers_line,
    apart,
    fitted,
    own_recipe,
    place_problems,
    section_of,
    summary,
)
from dataloader.building.sampling import SAMPLES
from dataloader.building.sources import Row
from dataloader.building.table_rows import Template, Templates, column_of, examples_of
from dataloader.building.tables import read_table
from dataloader.building.task_folder import NotBuilt, read_rows
from dataloader.errors import InputError, Problems, counted
from dataloader.metrics import METRICS
from dataloader.task_files import MalformedLines, describe
from dataloader.templates import dataset_of
from routing_moe.cli.console import run_command
from routing_moe.config.add_task import AddTaskSettings
from routing_moe.config.flags import flag_problems
from routing_moe.io.files import unwritable

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


def main(argv: list[str] | None = None) -> int:
    return run_command(add_task, AddTaskSettings, argv, __doc__)


def add_task(settings: AddTaskSettings) -> None:
    templates = Templates(
        Template("--input", settings.input),
        *(
            tuple(Template(f"--{flag}", text) for text in getattr(settings, flag))
            for flag in ("output", "options", "label_names")
        ),
    )
    check_flags(settings, templates)
    files = Downloads(Path())  # the hub's client has a cache of its own
    source = Prepared(settings.from_, read_examples(settings, templates, files))
    recipe = own_recipe(settings.name, source, settings.metric, settings.k, settings.sample_by)
    print(answers_line(recipe, source), end="", flush=True)  # before an error about them
    try:
        rows = read_rows(recipe, files)
    except NotBuilt:
        raise InputError(f"--from {settings.from_}: too few rows to keep 20% for a test file") from None
    recipe, notes = fitted(recipe, rows, typed=settings.k is not None)
    print_notes(notes)
    section = settings.section or section_of(GymFiles.read(settings.gym), settings.name) or "train"
    samples = SAMPLES[: settings.samples or (1 if section == "train" else len(SAMPLES))]
    add_to_gym(recipe, rows, settings.gym, samples, section)
    print(summary(recipe, rows, settings.gym, samples, section))


def check_flags(settings: AddTaskSettings, templates: Templates) -> None:
    """Raises InputError with the problems that need no rows."""
    problems = Problems([*flag_problems(settings), *templates.problems()])
    if not TASK_NAME.fullmatch(settings.name):
        problems.append(f"--name {settings.name!r}: expected letters, digits and _ + -, such as 'my_task'")
    if (known := dataset_of(settings.name)) in METRICS:
        problems.append(f"--name {settings.name}: {known} is a task of CrossFit; choose another name")
    if reason := unwritable(settings.gym):
        problems.append(f"--gym {reason}")
    problems += (
        problems.of(place_problems, settings.gym, settings.name, settings.metric, settings.section) or []
    )
    if problems:
        raise InputError(problems)


def read_examples(settings: AddTaskSettings, templates: Templates, files: Files) -> dict[str, list[Row]]:
    """Returns {split: examples} of the tables. Raises InputError with the problems of both."""
    problems = Problems()
    fields = [field for template in templates.all for field in template.fields]
    columns = {*fields, *map(column_of, fields)}
    flags = {"train": "from", "test": "test_from"}
    sources = {"train": settings.from_} | ({"test": settings.test_from} if settings.test_from else {})
    tables = {
        split: problems.of(read_table, source, columns, files, not settings.label_names, flag=flags[split])
        for split, source in sources.items()
    }
    for table in filter(None, tables.values()):
        problems += filter(None, (template.problem(table) for template in templates.all))
    if problems:
        raise InputError(dict.fromkeys(problems))
    parsed = {split: examples_of(table, templates, settings.metric) for split, table in tables.items()}
    malformed = [
        MalformedLines(Path(tables[split].source), lines) for split, (_, lines) in parsed.items() if lines
    ]
    if malformed and (not settings.skip_malformed or not all(examples for examples, _ in parsed.values())):
        raise InputError(describe(malformed))
    for file in malformed:
        print(f"{file.path}: {counted(len(file.lines), 'malformed line')} left out", file=sys.stderr)
    splits, notes = apart({split: examples for split, (examples, _) in parsed.items()}, sources)
    print_notes(notes)
    return splits


def print_notes(notes: list[str]) -> None:
    print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
