"""Copy a gym of real tasks so that the same text has different answers in different tasks.

    routing-moe conflict-gym relabel --gym data/gym --output_dir data/relabelled
    routing-moe conflict-gym relabel --gym data/gym --share 0 --output_dir data/opaque       # the control
    routing-moe conflict-gym relabel --gym data/gym --permute in_place --output_dir data/permuted

Tasks get opaque names (t001, ...), in random order. Half of the classification tasks of each section of the
split also get a copy: the same rows with permuted labels, where every label becomes another one. Only the
task's name or route then says which answer is right. With --permute in_place there is no copy, the labels of
the task itself are permuted: it contradicts the meaning of the words, and other tasks with the same labels.

A classification task has a few labels as its only answers in all files (`labels_of` has the rule). Inputs are
not changed; lists of options in them, and options in JSON lines, must have all labels. Other files:
`split.json`, `metrics.json`, `ontology.json`, `skills.csv` (the tasks' features), `relabelled.csv` (what
was done) and `oracle_routes.json` (`--task_routes`: expert 1 for tasks with permuted labels, 0 for all
others). The same settings write the same bytes.
"""

import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataloader.errors import InputError, Problems
from dataloader.gym import ENDINGS, Gym
from dataloader.labels import read_task_table
from dataloader.ontology import UNCATEGORISED, Ontology
from dataloader.options import LABEL_METRICS, label_set, option_source
from dataloader.task_files import read_task_file
from dataloader.task_splits import SECTIONS, Split, load_split
from routing_moe.analysis.features import OWN_FEATURES, SHIPPED_FEATURES
from routing_moe.config.flags import PROBABILITY, REQUIRED, SEED, group
from task.gym_files import ontology_of, write_tables
from task.written_folder import FILES, FolderCommand, run_once, written_at_once

LABELS = group("labels")
PERMUTE = ("copy", "in_place")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class RelabelSettings(FolderCommand):
    program = "routing-moe conflict-gym relabel"
    usage = "--gym FOLDER --output_dir FOLDER [flags, see --help]"

    gym: str = FILES(REQUIRED, "gym folder")
    split: str | None = FILES(None, "JSON with task lists train, dev, test; other tasks are left out (default: split.json in --gym)")
    skip_malformed: bool = FILES(False, "leave out malformed lines of task files instead of stopping")
    share: float = LABELS(0.5, "share of the classification tasks whose labels are permuted; 0: only names change", range=PROBABILITY)
    permute: str = LABELS("copy", "copy: the task stays, and a copy of it has permuted labels; in_place: the task itself has them", choices=PERMUTE)
    seed: int = LABELS(0, "seed of the names, the choice of tasks and the permutations", range=SEED)
# fmt: on


@dataclass(frozen=True)
class NewTask:
    """A task of the new gym. permutation: {label: new label}; {} if answers are not changed."""

    name: str
    source: str
    is_classification: bool
    permutation: dict[str, str] = field(default_factory=dict)


def main(argv: list[str] | None = None) -> int:
    return run_once(write, RelabelSettings, argv, __doc__, check)


def check(settings: RelabelSettings) -> tuple[Gym, Split, Ontology]:
    """Reads the gym. Raises InputError."""
    problems = Problems()
    gym = problems.of(Gym, settings.gym, settings.skip_malformed, flag="gym")
    split = problems.of(load_split, settings.split or Path(settings.gym) / "split.json")
    of_gym = Path(settings.gym) / "ontology.json"
    ontology = problems.of(Ontology.load, of_gym if of_gym.exists() else None)
    if gym and split:
        problems += gym.check(split.all, parts=["train"], split=split.path)
    if problems:
        raise InputError(problems)
    return gym, split, ontology


def write(settings: RelabelSettings, inputs: tuple[Gym, Split, Ontology]) -> None:
    gym, split, ontology = inputs
    tasks = new_tasks(settings, gym, split)
    with written_at_once(settings) as folder:
        for task in tasks:
            write_task(task, gym, folder)
        write_tables(folder, tables(tasks, gym, split, ontology), indent=1)
    permuted = sum(bool(task.permutation) for task in tasks)
    print(
        f"wrote {settings.output_dir}: {len(tasks)} tasks, {sum(t.is_classification for t in tasks)} of them "
        f"classification, {permuted} with permuted labels"
    )


# ---- what to change


def new_tasks(settings: RelabelSettings, gym: Gym, split: Split) -> list[NewTask]:
    """Returns the tasks of the new gym in the order of their names. Raises InputError if none can change."""
    labels = {task: labels_of(gym, task) for task in split.all}
    rng = random.Random(f"{settings.seed} relabel")
    permuted = chosen_tasks(settings, rng, split, [task for task in split.all if labels[task]])
    if settings.share > 0 and not permuted:
        raise InputError(
            f"--share is {settings.share:g}, but no task is chosen: of the {len(labels)} tasks of the split, "
            f"{sum(map(bool, labels.values()))} are classification tasks; give a larger share, or 0"
        )
    versions = [(task, deranged(rng, labels[task])) for task in permuted]
    unchanged = [task for task in split.all if settings.permute == "copy" or task not in permuted]
    versions += [(task, {}) for task in unchanged]
    rng.shuffle(versions)
    width = max(3, len(str(len(versions))))
    return [
        NewTask(f"t{number:0{width}d}", task, bool(labels[task]), permutation)
        for number, (task, permutation) in enumerate(versions, start=1)
    ]


def chosen_tasks(settings: RelabelSettings, rng, split: Split, tasks: list[str]) -> list[str]:
    """Returns the share of `tasks` whose labels are permuted, drawn in each section of the split."""
    section_of = {task: name for name in reversed(SECTIONS) for task in split.section(name)}
    chosen = []
    for name in (*SECTIONS, None):
        of_section = sorted(task for task in tasks if section_of.get(task) == name)
        chosen += rng.sample(of_section, round(settings.share * len(of_section)))
    return chosen


def labels_of(gym: Gym, task: str) -> tuple[str, ...]:
    """Returns the labels of a classification task, sorted; () for any other task.

    Its metric compares whole answers, its train files have few different answers (`options.label_set`), no
    file has others, and wherever options are listed, they include all labels.
    """
    train = gym.examples(task, "train")
    labels = label_set(train) if gym.metric(task) in LABEL_METRICS else ()
    if not labels:
        return ()
    source = option_source(train, gym.metric(task))
    parts = [part for part in ("train", "dev", "test") if gym.has_part(task, part)]
    for example in (example for part in parts for example in gym.examples(task, part)):
        listed = source.options(example) if source.name in ("field", "input") else labels
        if not set(example.outputs) <= set(labels) <= set(listed):
            return ()
    return labels


def deranged(rng: random.Random, labels: Sequence[str]) -> dict[str, str]:
    """Returns a random permutation of at least two labels that changes each of them."""
    while True:
        shuffled = rng.sample(labels, len(labels))
        if all(old != new for old, new in zip(labels, shuffled, strict=True)):
            return dict(zip(labels, shuffled, strict=True))


# ---- files


def write_task(task: NewTask, gym: Gym, folder: Path) -> None:
    """Writes the files of a task under its new name; files of unchanged answers are the same bytes."""
    (folder / task.name).mkdir()
    for path in sorted((gym.folder / task.source).iterdir()):
        if path.suffix not in ENDINGS:
            continue
        new = folder / task.name / (task.name + path.name.removeprefix(task.source))
        if not task.permutation:
            shutil.copyfile(path, new)
            continue
        rows, _ = read_task_file(path, gym.skip_malformed)
        new.write_text(
            "".join(_line(path.suffix, task.permutation, *row) for row in rows), "utf-8", newline="\n"
        )


def _line(suffix: str, permutation: dict[str, str], text: str, outputs, options=()) -> str:
    """Returns a line of a task file with permuted answers; the order of options is kept."""
    answers = [permutation[output] for output in outputs]
    if suffix == ".tsv":
        return "\t".join([text, *answers]) + "\n"
    row = {"input": text, "outputs": answers} | ({"options": list(options)} if options else {})
    return json.dumps(row, ensure_ascii=False) + "\n"


def tables(tasks: list[NewTask], gym: Gym, split: Split, ontology: Ontology) -> dict[str, Any]:
    """Returns the tables next to the tasks, for `write_tables`."""
    sections = {
        name: [task.name for task in tasks if task.source in split.section(name)] for name in SECTIONS
    }
    if len({name for names in sections.values() for name in names}) < len(tasks):
        sections["all"] = [task.name for task in tasks]
    categorised = [
        (*ontology.category(source), task.name)
        for source in ontology.order({task.source for task in tasks})
        for task in tasks
        if task.source == source and ontology.category(source) != UNCATEGORISED
    ]
    done = [["task", "source", "labels", "permutation"]]
    for task in tasks:
        labels = "permuted" if task.permutation else "kept" if task.is_classification else ""
        changes = "; ".join(f"{old} -> {new}" for old, new in task.permutation.items())
        done.append([task.name, task.source, labels, changes])
    features = _features(tasks, gym)
    return {
        "metrics.json": {task.name: gym.metric(task.source) for task in tasks},
        "ontology.json": ontology_of(categorised),
        "split.json": sections,
        "relabelled.csv": done,
        "oracle_routes.json": {task.name: int(bool(task.permutation)) for task in tasks},
    } | ({OWN_FEATURES: features} if len(features) > 1 else {})


def _features(tasks: list[NewTask], gym: Gym) -> list[list[str]]:
    """Returns the rows of the gym's table of features, else of the shipped one, under the new names."""
    of_gym = gym.folder / OWN_FEATURES
    header, rows = read_task_table(of_gym if of_gym.is_file() else SHIPPED_FEATURES)
    column = header.index("task")
    renamed = [(task.name, rows[task.source]) for task in tasks if task.source in rows]
    return [header, *([*cells[:column], name, *cells[column + 1 :]] for name, cells in renamed)]


if __name__ == "__main__":
    sys.exit(main())
