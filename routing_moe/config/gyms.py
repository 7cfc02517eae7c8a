"""The flags of `routing-moe add-task`, `build-gym` and `list-tasks`."""

import os
from dataclasses import dataclass
from pathlib import Path

from dataloader.building.recipe import SAMPLES
from dataloader.building.tables import HUB_FORM
from dataloader.metrics import METRIC_FUNCTIONS
from dataloader.task_splits import SECTIONS
from routing_moe.config.flags import AT_LEAST_1, REQUIRED, SEED, Command, Range, group
from routing_moe.config.plugins import PluginFlags

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "routing_moe"

TASK = group("task")
TASKS = group("tasks")
ROWS = group("rows")
SAMPLED = group("samples")
SOURCES = group("sources")
RUNNING = group("running")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class AddTaskSettings(PluginFlags):
    program = "routing-moe add-task"

    gym: Path = TASK(REQUIRED, "gym folder; it is created if necessary", metavar="DIR")
    name: str = TASK(REQUIRED, "name of the task and of its folder", metavar="TASK")
    metric: str = TASK(REQUIRED, "metric of its scores", choices=METRIC_FUNCTIONS)
    section: str | None = TASK(None, "section of DIR/split.json for the task (default: train, or where the file has it)", choices=SECTIONS)

    from_: str = ROWS(REQUIRED, f"file *.csv, *.tsv, *.jsonl or *.parquet, or {HUB_FORM} (split: train)", metavar="TABLE")
    test_from: str | None = ROWS(None, "rows of the test file, from a table with the same columns (default: 20% of the rows)", metavar="TABLE")
    input: str | None = ROWS(None, "text with columns in braces; a list is written as (A) first (B) second", metavar="TEXT")
    output: tuple[str, ...] = ROWS((), "accepted answers: texts with columns in braces; each element of a list is one", metavar="TEXT")
    messages: str | None = ROWS(None, "column with chats, in place of --input and --output: the last turn is the answer, that before it the input", metavar="COLUMN")
    keep_whitespace: bool = ROWS(False, "keep line breaks and indents, as of code, which chats keep anyway (default: each run of white space becomes one space)")
    options: tuple[str, ...] = ROWS((), "answers to choose from: words, columns in braces, or a column with a list", metavar="TEXT")
    labels: tuple[str, ...] = ROWS((), "names of the labels 0, 1, ... (or A, B, ...) that --output gives: words, or a column with a list (default: the labels as they are)", metavar="NAME")
    skip_malformed: bool = ROWS(False, "leave out malformed lines and rows with an empty cell")

    k: int | None = SAMPLED(None, "rows of each train and each dev file, of every label or in total (default: 16 of every label, or 32; fewer if the table is small)", range=AT_LEAST_1)
    sample_by: str | None = SAMPLED(None, "k rows of every label, or k rows (default: label if the answers are few and the metric compares labels)", choices=("label", "row"))
    samples: int | None = SAMPLED(None, f"number of samples, with the seeds {' '.join(map(str, SAMPLES))} (default: 1 in the section train, where training pools the samples, else {len(SAMPLES)})", range=Range(lambda n: 1 <= n <= len(SAMPLES), f"from 1 to {len(SAMPLES)}"))


@dataclass(frozen=True, kw_only=True)
class BuildGymSettings(Command):
    program = "routing-moe build-gym"

    output_dir: Path = TASKS(REQUIRED, "gym folder to write", metavar="DIR")
    tasks: tuple[str, ...] = TASKS((), 'names or patterns such as "glue-*" (default: see --split)', metavar="NAME")
    split: Path | None = TASKS(None, "split file: builds its tasks; its sections go to split.json (default: the 160 published ones, in the sections of random.json)", metavar="FILE")
    samples: tuple[int, ...] = TASKS(SAMPLES, "seeds of the samples", range=SEED, metavar="SEED")

    mirror: Path | None = SOURCES(None, "read all files from this folder, <host>/<path> of the URL, and download nothing", metavar="DIR")
    cache_dir: Path = SOURCES(CACHE, "folder of downloaded raw files", metavar="DIR")
    accept_changed: bool = SOURCES(False, "use raw files that differ from those of 2021")

    num_workers: int = RUNNING(min(4, os.cpu_count() or 1), "tasks built at the same time", range=AT_LEAST_1, metavar="N")


@dataclass(frozen=True, kw_only=True)
class ListTasksSettings(Command):
    program = "routing-moe list-tasks"

    names: tuple[str, ...] = TASKS(REQUIRED, "a task; train, dev, test or all; or file.json:section", positional=True)
    split: str = TASKS(REQUIRED, "split file for sections without a file name", metavar="FILE")
    gym: str | None = TASKS(None, "gym folder, to check that it has a folder for each task", metavar="DIR")
# fmt: on
