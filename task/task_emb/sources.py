"""The data that a task's vector is computed from: its name, its train files, or sentences about it, but never
its dev or test files."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from dataloader.checksums import sha256_of
from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.gym import Example, Gym, own_split
from dataloader.jsonfile import load_json_object
from dataloader.list_tasks import tasks_named
from dataloader.task_splits import SECTIONS, Split, load_split
from routing_moe.task_choice.texts import train_examples

EACH = "each"  # --samples each: one vector per sample, computed only from the rows of that sample


class Source:
    """What task vectors are computed from."""

    def units(self, tasks: Sequence[str]) -> dict[str, str]:
        """Returns {unit: its task}. One vector is computed per unit; by default, a unit is a task."""
        return {task: task for task in tasks}

    def problems(self, tasks: Sequence[str]) -> list[str]:
        """Returns errors in the data of tasks."""
        return []


class Names(Source):
    """Task names, without any data. known: names of existing tasks; None: any name is allowed."""

    def __init__(self, known: list[str] | None):
        self.known = known

    def checksum(self, task: str) -> str:
        return sha256_of([task])


class TrainFiles(Source):
    """The train files of the tasks of a gym.

    samples, most: as for `train_examples`, or samples=EACH for each sample separately; answers: whether
    answers are read, and so included in the checksum.
    """

    def __init__(self, gym: Gym, samples: str, most: int | None, answers: bool):
        self.gym, self.samples, self.most, self.answers = gym, samples, most, answers

    @property
    def known(self) -> list[str]:
        return self.gym.tasks()

    def units(self, tasks: Sequence[str]) -> dict[str, str]:
        """Returns {unit: its task}. With EACH, a unit is a sample."""
        if self.samples != EACH:
            return super().units(tasks)
        return {sample: task for task in tasks for sample in self.gym.samples(task)}

    @cached_property
    def _tasks_of_samples(self) -> dict[str, str]:
        return self.units(self.known)

    def problems(self, tasks: Sequence[str]) -> list[str]:
        """Returns errors: tasks without the given sample; missing, empty or malformed train files."""
        problems = []
        if self.samples == EACH:
            problems += self._name_problems(tasks)
        elif self.samples not in ("all", "first"):
            without = [task for task in tasks if not self.gym.has_sample(task, self.samples)]
            if without:
                available = ", ".join(self.gym.samples(without[0]))
                problems.append(
                    f"--samples is {self.samples!r}: no such sample of {in_short(without)}; give each, all, "
                    f"first, or a seed: {without[0]} has {available}"
                )
            tasks = [task for task in tasks if task not in without]
        samples = "all" if self.samples == EACH else self.samples
        return problems + self.gym.check(tasks, ["train"], samples, metrics=False)

    def _name_problems(self, tasks: Sequence[str]) -> list[str]:
        """Returns errors: samples that have the name of another sample or task."""
        every = [(sample, task) for task in self.known for sample in self.gym.samples(task)]
        counts = Counter([sample for sample, _ in every] + self.known)
        return [
            f"{self.gym.folder / task}: the sample {sample} has the name of another sample or task, so that "
            "--samples each cannot distinguish them; rename its files to <task>_<k>_<seed>_<part>"
            for sample, task in every
            if task in tasks and counts[sample] > 1
        ]

    def of(self, unit: str) -> list[Example]:
        """Returns the examples that the vector of a task (with EACH: of a sample) is computed from."""
        if self.samples == EACH:
            return train_examples(self.gym, self._tasks_of_samples[unit], unit, most=self.most)
        return train_examples(self.gym, unit, self.samples, most=self.most)

    def checksum(self, unit: str) -> str:
        """Checksum of the texts that are read; the task's name is not part of it."""
        return sha256_of(
            text
            for example in self.of(unit)
            for text in (example.input, *(example.outputs if self.answers else ()))
        )


class Descriptions(Source):
    """A JSON file {task: sentence, or list of sentences}. Raises InputError, naming the file and the task."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        table = load_json_object(self.path, 'descriptions like {"task": "what it asks for"}')
        problems = []
        for task, value in table.items():
            sentences = value if isinstance(value, list) else [value]
            if not sentences or not all(isinstance(text, str) and text.strip() for text in sentences):
                problems.append(f'{self.path}: "{task}" must be a sentence, or a list of sentences')
            table[task] = sentences
        if not table:
            problems.append(f'{self.path} is empty; expected {{"task": "what it asks for"}}')
        if problems:
            raise InputError(problems)
        self.sentences: dict[str, list[str]] = table

    @property
    def known(self) -> list[str]:
        return list(self.sentences)

    def checksum(self, task: str) -> str:
        return sha256_of(self.sentences[task])


def split_of(custom_tasks_splits: str | Path | None, train_dir: str | Path | None) -> Split | None:
    """Returns --custom_tasks_splits, else the split.json in --train_dir, else None. Raises InputError."""
    own_split = Path(train_dir) / "split.json" if train_dir else None
    if custom_tasks_splits is None and (own_split is None or not own_split.is_file()):
        return None
    return load_split(custom_tasks_splits or own_split)


def chosen_tasks(
    words: Sequence[str] | None, split: Split | None, known: Sequence[str] | None, where: str
) -> list[str]:
    """The sorted task names that `words` (names, sections of a split) select; without words, all tasks of the
    split, or all known tasks.

    known: tasks that a vector can be computed for; None: any. where: the place that has them, for messages.
    Raises InputError with all unknown tasks.
    """
    if words is None and split is None and known is None:
        raise InputError(
            "no tasks are given: give --custom_tasks_splits, a --train_dir with a split.json, or --tasks"
        )
    if words is None:
        words = sorted(known) if split is None else ["all"]
    sections = [word for word in words if word in (*SECTIONS, "all")]
    if sections and split is None:
        raise InputError(
            f"--tasks {sections[0]}: a section needs a split; give --custom_tasks_splits, or a "
            "--train_dir that has a split.json"
        )
    tasks = tasks_named(words, split.path if split else "")
    if invalid := [task for task in tasks if "/" in task]:
        raise InputError(f"{task!r} is not a valid task name: it must be a file name" for task in invalid)
    unknown = [task for task in tasks if known is not None and task not in known]
    if split and (of_split := [task for task in unknown if task in split.all]):
        own = own_split(Path(where), split.path)
        instead = f"use {own}" if own and own.is_file() else "give others with --tasks, or another split"
        raise InputError(f"{split.path}: {where} does not have {in_short(of_split)}; {instead}")
    if unknown:
        names = [*known, *SECTIONS, "all"]
        raise InputError(f"no task '{task}' in {where}{did_you_mean(task, names)}" for task in unknown)
    return sorted(tasks)
