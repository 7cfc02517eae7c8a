"""Write the embedded gym: 36 tasks built from known skills, in CrossFit's file format.

    routing-moe skill-gym --output_dir data/skill_gym
    routing-moe skill-gym --output_dir data/skill_gym_1 --seed 1

Files are `<task>/<task>_<k>_<seed>_{train,dev,test}.tsv`, one row per line, `input<TAB>answer[<TAB>more
answers]`. As in the published gym, every task has five samples (seeds 100, 13, 21, 42, 87) of 16 rows per
class, or of 32 rows if it is not a classification task. Each sample has its own train and dev file; all
samples have the same test file.

A train task has one additional sample, its *pool*, `<task>_1536_0`: 1536 train rows for multi-task
training. In string order, `<task>_1536_0` comes before `<task>_16_..` and `<task>_32_..`: code that scores
a task on the dev file of its first sample uses the dev file of the pool.

All inputs of a task are different, across all of its files, except for the copies of the test file. The same
seed writes the same bytes. The seed only draws the rows; the world and its facts are fixed (`world.py`).

Other files: `metrics.json`, `split.json`, `ontology.json`, `descriptions.json` (one sentence per task that
says what it asks for) and `skills.csv` (the true skills of each task).
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path

from dataloader.building.recipe import SAMPLES
from routing_moe.config.flags import SEED
from task.gym_files import Row, tables_of, without_repeats, write_rows, write_tables
from task.skill_gym.tasks import TASKS, SkillTask
from task.written_folder import FILES, FolderCommand, run_once, written_at_once

ROWS_PER_CLASS = 16
ROWS = 32
POOL_ROWS = 1536
TEST_ROWS = 144


@dataclass(frozen=True, kw_only=True)
class SkillGymSettings(FolderCommand):
    """The flags of `routing-moe skill-gym`."""

    program = "routing-moe skill-gym"
    usage = "--output_dir FOLDER [--seed N]"
    settings_file = "gym.json"

    seed: int = FILES(0, "seed of the rows; the world is always the same", range=SEED)


def main(argv: list[str] | None = None) -> int:
    return run_once(write, SkillGymSettings, argv, __doc__)


def write(settings: SkillGymSettings, _) -> None:
    with written_at_once(settings) as folder:
        generate(folder, settings.seed)
    print(f"{len(TASKS)} tasks written to {settings.output_dir}")


def generate(folder: str | Path, seed: int = 0) -> None:
    """Writes the gym of `seed` into a folder."""
    for task in TASKS:
        for name, rows in task_files(task, seed).items():
            write_rows(Path(folder) / task.name / name, rows)
    tables = tables_of([task.described() for task in TASKS])
    tables["split.json"]["all"] = [task.name for task in TASKS]
    tables["descriptions.json"] = {task.name: task.description for task in TASKS}
    write_tables(Path(folder), tables)


def take(task: SkillTask, rows: Iterator[Row], count: int) -> list[Row]:
    """The next `count` rows. If the task has classes, rows are skipped so that all classes are equally
    frequent.
    """
    if not task.classes:
        return list(islice(rows, count))
    missing = Counter(dict.fromkeys(task.classes, count // len(task.classes)))
    taken = []
    while missing.total():
        row = next(rows)
        if missing[row[1]]:
            missing[row[1]] -= 1
            taken.append(row)
    return taken


def sample_sizes(task: SkillTask) -> dict[str, tuple[int, int]]:
    """{suffix of the sample's name, such as "16_100": (number of train rows, number of dev rows)}."""
    k = ROWS_PER_CLASS if task.classes else ROWS
    rows = k * max(1, len(task.classes))
    sizes = {f"{k}_{seed}": (rows, rows) for seed in SAMPLES}
    return {f"{POOL_ROWS}_0": (POOL_ROWS, rows), **sizes} if task.split == "train" else sizes


def task_files(task: SkillTask, seed: int) -> dict[str, list[Row]]:
    """{file name: rows} of all files of one task."""
    rng = random.Random(f"{seed} {task.name}")
    rows = without_repeats(lambda: task.draw(rng), key=itemgetter(0))
    test = take(task, rows, TEST_ROWS)
    files = {}
    for sample, (train_rows, dev_rows) in sample_sizes(task).items():
        files[f"{task.name}_{sample}_train.tsv"] = take(task, rows, train_rows)
        files[f"{task.name}_{sample}_dev.tsv"] = take(task, rows, dev_rows)
        files[f"{task.name}_{sample}_test.tsv"] = test
    return files
