"""Write the embedded gym: 36 tasks built from known skills, in CrossFit's file format.

    python -m task.skill_gym.generate --output_dir data/skill_gym
    python -m task.skill_gym.generate --output_dir data/skill_gym_1 --seed 1

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

import argparse
import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from task.skill_gym.descriptions import DESCRIPTIONS
from task.skill_gym.formats import Row
from task.skill_gym.tasks import TASKS, Task, metric_table, ontology, skill_table, split_table

SAMPLE_SEEDS = (100, 13, 21, 42, 87)
ROWS_PER_CLASS = 16
ROWS = 32
POOL_ROWS = 1536
TEST_ROWS = 144


def fresh_rows(task: Task, rng: random.Random) -> Iterator[Row]:
    """Endless random rows of a task, all with different inputs."""
    seen = set()
    while True:
        row = task.draw(rng)
        if row.text not in seen:
            seen.add(row.text)
            yield row


def take(task: Task, rows: Iterator[Row], count: int) -> list[Row]:
    """The next `count` rows. If the task has classes, rows are skipped so that all classes are equally
    frequent.
    """
    if not task.classes:
        return list(islice(rows, count))
    wanted = Counter(dict.fromkeys(task.classes, count // len(task.classes)))
    taken = []
    while wanted.total():
        row = next(rows)
        if wanted[row.answers[0]]:
            wanted[row.answers[0]] -= 1
            taken.append(row)
    return taken


def sample_sizes(task: Task) -> dict[str, tuple[int, int]]:
    """{suffix of the sample's name, such as "16_100": (number of train rows, number of dev rows)}."""
    k = ROWS_PER_CLASS if task.classes else ROWS
    rows = k * max(1, len(task.classes))
    sizes = {f"{k}_{seed}": (rows, rows) for seed in SAMPLE_SEEDS}
    return {f"{POOL_ROWS}_0": (POOL_ROWS, rows), **sizes} if task.split == "train" else sizes


def task_files(task: Task, seed: int) -> dict[str, list[Row]]:
    """{file name: rows} of all files of one task."""
    rng = random.Random(f"{seed} {task.name}")
    rows = fresh_rows(task, rng)
    test = take(task, rows, TEST_ROWS)
    files = {}
    for sample, (train_rows, dev_rows) in sample_sizes(task).items():
        files[f"{task.name}_{sample}_train.tsv"] = take(task, rows, train_rows)
        files[f"{task.name}_{sample}_dev.tsv"] = take(task, rows, dev_rows)
        files[f"{task.name}_{sample}_test.tsv"] = test
    return files


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write a task file."""
    lines = ("\t".join((row.text, *row.answers)) + "\n" for row in rows)
    path.write_bytes("".join(lines).encode())


def _skills_csv() -> str:
    columns, rows = skill_table()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", *columns])
    writer.writerows([task.name, *row] for task, row in zip(TASKS, rows, strict=True))
    return text.getvalue()


def generate(output_dir: str | Path, seed: int = 0) -> None:
    """Write the gym of `seed` into `output_dir`, replacing existing files; `split.json` is written last."""
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "split.json").unlink(missing_ok=True)
    tables = {
        "metrics.json": json.dumps(metric_table(), indent=2) + "\n",
        "ontology.json": json.dumps(ontology(), indent=2) + "\n",
        "descriptions.json": json.dumps(DESCRIPTIONS, indent=2) + "\n",
        "skills.csv": _skills_csv(),
        "split.json": json.dumps(split_table(), indent=2) + "\n",
    }
    for task in TASKS:
        folder = output_dir / task.name
        folder.mkdir(exist_ok=True)
        for name, rows in task_files(task, seed).items():
            write_rows(folder / name, rows)
    for name, text in tables.items():
        (output_dir / name).write_bytes(text.encode())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m task.skill_gym.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output_dir", required=True, help="folder to write the gym into")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the rows; the world is always the same (default: 0)"
    )
    args = parser.parse_args(argv)
    generate(args.output_dir, args.seed)
    print(f"{len(TASKS)} tasks written to {args.output_dir}")


if __name__ == "__main__":
    main()
