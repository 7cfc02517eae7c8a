"""What a task's vector is made of: its name, its train files, or sentences about it. Never its dev or test
files."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from dataloader.errors import FEW, InputError, did_you_mean, in_short
from dataloader.gym import Example, Gym
from dataloader.jsonfile import load_json_object
from dataloader.list_tasks import tasks_named
from dataloader.task_splits import SECTIONS
from routing_moe.evaluation.text_vectors import train_examples

EACH = "each"  # --samples each: a vector per sample, from its own rows alone
LONGEST_NAME = 200  # bytes; most file systems take 255, endings included


class Source:
    """What task vectors are computed from."""

    def units(self, tasks: Sequence[str]) -> dict[str, str]:
        """{unit: its task}. A unit has a vector of its own; here it is the task itself."""
        return {task: task for task in tasks}


class Names(Source):
    """Nothing but the names of tasks. known: those there are; None: any name is as good as another."""

    def __init__(self, known: list[str] | None):
        self.known = known

    def faults(self, tasks: Sequence[str]) -> list[str]:
        return []

    def checksum(self, task: str) -> str:
        return sha256_of([task])


class TrainFiles(Source):
    """The train files of a gym's tasks. samples, most, limit: as of `train_examples`, or EACH: every sample
    separately; answers: whether they count for the checksum."""

    def __init__(self, gym: Gym, samples: str, most: int | None, answers: bool):
        self.gym, self.samples, self.most, self.answers = gym, samples, most, answers

    @property
    def known(self) -> list[str]:
        return self.gym.tasks()

    def units(self, tasks: Sequence[str]) -> dict[str, str]:
        """{unit: its task}. With EACH a unit is a sample."""
        if self.samples != EACH:
            return super().units(tasks)
        return {sample: task for task in tasks for sample in self.gym.samples(task)}

    @cached_property
    def _tasks_of_samples(self) -> dict[str, str]:
        return self.units(self.known)

    def faults(self, tasks: Sequence[str]) -> list[str]:
        """Tasks without the sample asked for, and missing, empty or malformed train files."""
        faults = []
        if self.samples == EACH:
            faults += self._name_faults(tasks)
        elif self.samples not in ("all", "first"):
            lacking = [task for task in tasks if not self.gym.has_sample(task, self.samples)]
            if lacking:
                there = ", ".join(self.gym.samples(lacking[0]))
                faults.append(
                    f"--samples is {self.samples!r}: no such sample of {in_short(lacking)}; give each, all, "
                    f"first, or a seed: {lacking[0]} has {there}"
                )
            tasks = [task for task in tasks if task not in lacking]
        samples = "all" if self.samples == EACH else self.samples
        return faults + self.gym.check(tasks, ["train"], samples, metrics=False)

    def _name_faults(self, tasks: Sequence[str]) -> list[str]:
        """Faults: samples that have the name of another sample or task."""
        every = [(sample, task) for task in self.known for sample in self.gym.samples(task)]
        counts = Counter([sample for sample, _ in every] + self.known)
        return [
            f"{self.gym.folder / task}: the sample {sample} has the name of another sample or task, so that "
            "--samples each cannot distinguish them; rename its files to <task>_<k>_<seed>_<part>"
            for sample, task in every
            if task in tasks and counts[sample] > 1
        ]

    def of(self, unit: str) -> list[Example]:
        """The examples that the vector of a task (with EACH: of a sample) is made of."""
        if self.samples == EACH:
            return train_examples(self.gym, self._tasks_of_samples[unit], unit, most=self.most)
        return train_examples(self.gym, unit, self.samples, most=self.most)

    def checksum(self, unit: str) -> str:
        """Of the texts that are read; the task's name is not among them."""
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
        faults = []
        for task, said in table.items():
            sentences = said if isinstance(said, list) else [said]
            if not sentences or not all(isinstance(text, str) and text.strip() for text in sentences):
                faults.append(f'{self.path}: "{task}" must be a sentence, or a list of sentences')
            table[task] = sentences
        if not table:
            faults.append(f"{self.path}: describes no task")
        if faults:
            raise InputError(faults)
        self.sentences: dict[str, list[str]] = table

    @property
    def known(self) -> list[str]:
        return list(self.sentences)

    def faults(self, tasks: Sequence[str]) -> list[str]:
        return []  # all are found when the file is read

    def checksum(self, task: str) -> str:
        return sha256_of(self.sentences[task])


def sha256_of(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)} ".encode() + encoded)  # with the lengths, no two lists run together
    return digest.hexdigest()


def is_file_name(task: str) -> bool:
    """Whether a task can have files of its own."""
    return task not in ("", ".", "..") and not set(task) & set("/\\\0") and len(task.encode()) <= LONGEST_NAME


def chosen_tasks(
    words: Sequence[str] | None, split: str | Path | None, known: Sequence[str] | None, where: str
) -> list[str]:
    """Task names, sorted, that words (names, sections of a split) stand for; without words all of the split,
    or all that are known.

    known: those that a vector can be made of; None: any. where: what has them, for messages. Raises
    InputError with every unknown task.
    """
    if words is None and split is None:
        if known is None:
            raise InputError(
                "which tasks? give --custom_tasks_splits, a --train_dir with a split.json, or --tasks"
            )
        words = sorted(known)
    words = ["all"] if words is None else words
    sections = [word for word in words if word in (*SECTIONS, "all")]
    if sections and split is None:
        raise InputError(
            f"--tasks names the section {sections[0]!r}, but there is no split: give --custom_tasks_splits"
        )
    tasks = tasks_named(words, split)
    if odd := [task for task in tasks if not is_file_name(task)]:
        raise InputError(f"{task!r} cannot be the name of a task: it names no file" for task in odd)
    unknown = [task for task in tasks if known is not None and task not in known]
    if len(unknown) > FEW:
        raise InputError(f"{where} lacks {in_short(unknown)}; name those it has by --tasks, or another split")
    if unknown:
        names = [*known, *SECTIONS, "all"]
        raise InputError(f"no task '{task}' in {where}{did_you_mean(task, names)}" for task in unknown)
    if not tasks:
        raise InputError("--tasks names no task")
    return sorted(tasks)
