"""Add a task to a gym: samples, metric and place in the split, from a table or a data set on the hub.

    routing-moe add-task --gym my_gym --name my_reviews --from reviews.csv \\
        --input "review: {text}" --output "{stars}" --metric ACC
    routing-moe add-task --gym my_gym --name my_questions --from questions.jsonl --test_from test.jsonl \\
        --input "question: {q} context: {passage}" --output "{answers}" --metric QA-F1 --k 32 --section test
    routing-moe add-task --gym my_gym --name sst2 --from hub:nyu-mll/glue:sst2 \\
        --test_from hub:nyu-mll/glue:sst2:validation --input "{sentence}" --output "{label}" \\
        --labels negative positive --metric ACC
    routing-moe add-task --gym my_gym --name my_chats --from chats.jsonl --messages messages --metric Rouge-L
    routing-moe train --train_dir my_gym --total_steps 2000 --output_dir models/own

The last one trains bart-base on the gym; its default of 30,000 steps is for CrossFit's 120 train tasks.

Writes <gym>/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv (.jsonl with options, chats or --keep_whitespace),
and adds the task to metrics.json and split.json. Nothing that is there is overwritten; the same command again
completes what an interrupted one has left. Exits with 0; with 2 if nothing was added; with 130 after Ctrl-C.
"""

import re
import sys
from pathlib import Path

from dataloader.building.downloads import Downloads
from dataloader.building.gym_files import GymFiles
from dataloader.building.own_task import add_to_gym, task_of
from dataloader.building.recipe import SAMPLES, Examples
from dataloader.building.tables import Template, Templates, column_of, examples_of, read_table
from dataloader.errors import InputError, counted, problem_context
from dataloader.metrics import METRICS
from dataloader.task_files import malformed_lines
from dataloader.task_splits import SECTIONS
from dataloader.templates import dataset_of
from routing_moe.config.console import run_command
from routing_moe.config.gyms import AddTaskSettings
from routing_moe.io.files import unwritable

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")


def main(argv: list[str] | None = None) -> int:
    return run_command(add_task, AddTaskSettings, argv, __doc__)


def add_task(settings: AddTaskSettings) -> None:
    check_flags(settings)
    column, keep = settings.messages, settings.keep_whitespace or settings.messages is not None
    output, options, labels = (
        tuple(Template(f"--{flag}", text, keep) for text in getattr(settings, flag))
        for flag in ("output", "options", "labels")
    )
    text = settings.input if column is None else f"{{{column}}}"
    flag = "--input" if column is None else "--messages"
    source = Template(flag, text, keep, is_chat=column is not None)
    templates = Templates(source, output, options, labels)
    train = read_examples(settings, "from", settings.from_, templates)
    test = read_examples(settings, "test_from", settings.test_from, templates) if settings.test_from else None
    sampling = settings.metric, settings.k, settings.sample_by, source.kept
    recipe, rows, notes = task_of(settings.name, train, test, settings.from_, *sampling)
    section = settings.section or GymFiles.read(settings.gym).section_of(settings.name) or "train"
    samples = SAMPLES[: settings.samples or (1 if section == "train" else len(SAMPLES))]
    add_to_gym(recipe, rows, settings.gym, samples, section)
    print(*notes, sep="\n", file=sys.stderr)
    print(
        f"{settings.gym / recipe.task}: {counted(len(samples), 'sample')} of {recipe.k} train and {recipe.k} "
        f"dev rows{' of each label' if recipe.by_label else ''} (--k), drawn from "
        f"{counted(len(rows.pool), 'row')}; {counted(len(rows.test), 'test row')}"
    )


def check_flags(settings: AddTaskSettings) -> None:
    """Raises InputError with the problems that need no rows."""
    problems, texts = [], (settings.input is not None, bool(settings.output))
    if texts != ((False, False) if settings.messages is not None else (True, True)):
        problems.append("give --input TEXT and --output TEXT, or --messages COLUMN instead of both")
    if not TASK_NAME.fullmatch(settings.name):
        problems.append(f"--name {settings.name!r}: expected letters, digits and _ + -, such as 'my_task'")
    if settings.name in (*SECTIONS, "all"):
        problems.append(f"--name {settings.name}: a section of the split has this name; choose another")
    if (published := dataset_of(settings.name)) in METRICS:
        problems.append(f"--name {settings.name}: {published} is a task of CrossFit; choose another name")
    if reason := unwritable(settings.gym):
        problems.append(f"--gym {reason}")
    if problems:
        raise InputError(problems)


def read_examples(settings: AddTaskSettings, flag: str, source: str, templates: Templates) -> Examples:
    """Returns the examples of a table. Raises InputError, also for malformed lines."""
    fields = [field for template in templates.all for field in template.fields]
    files = Downloads(Path())  # the hub's client has a cache of its own
    with problem_context(f"--{flag} "):
        table = read_table(source, {*fields, *map(column_of, fields)}, files)
    for template in templates.all:
        template.check(table)
    examples, malformed, warnings = examples_of(table, templates, settings.metric)
    if malformed and not (settings.skip_malformed and examples):
        raise malformed_lines(Path(source), malformed)
    if malformed:
        print(f"{source}: {counted(len(malformed), 'malformed line')} left out", file=sys.stderr)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return examples
