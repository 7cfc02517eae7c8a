"""A folder of few-shot tasks in the CrossFit format.

    <gym>/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv     a line: input TAB answer [TAB another answer ...]
    <gym>/<task>/<task>_<k>_<seed>_{train,dev,test}.jsonl   JSON lines, which may have answer options
    <gym>/metrics.json                                      optional: {task: metric}, for new tasks
    <gym>/split.json, <gym>/splits/                         optional: sections of the tasks (task_splits.py)

"boolq_16_100" is a *sample* of the task boolq: its train, dev and test files were drawn with seed 100.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, Problems, did_you_mean, in_short
from dataloader.jsonfile import load_json_object
from dataloader.metrics import METRIC_FUNCTIONS, METRICS
from dataloader.task_files import Turns, read_task_file, whole_text
from dataloader.task_splits import PUBLISHED_SPLITS, SECTIONS, load_split
from dataloader.templates import dataset_of

PARTS = ("train", "dev", "test")
PROVENANCE = "source.json"  # of a task: {seed: source of the sample's rows}, of `add-task` also "input"
SPLITS = "splits"  # folder in a built gym: the published splits without the tasks that the gym lacks

_FILE_NAME = re.compile(r"(?P<sample>.+)_(?P<part>train|dev|test)\.(?:tsv|jsonl)")


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a task file. sample: prefix of the file name; options: answers to choose from, or ()."""

    task: str
    sample: str
    input: str
    outputs: tuple[str, ...]
    options: tuple[str, ...] = ()
    before: Turns = field(default=(), repr=False)  # of a chat; checksums of grids are of the others' repr

    @property
    def whole_text(self) -> str:
        """The input after the turns before it."""
        return whole_text(self.input, self.before)


def evenly_spread(examples: list, most: int | None) -> list:
    """Returns at most `most` of the examples, evenly spaced and in their order; None: all of them.

    Few-shot files are sorted by label, so the first examples of a file all have the same label.
    """
    n = len(examples) if most is None else min(len(examples), most)
    return [examples[index] for index in np.linspace(0, len(examples) - 1, n).round().astype(int)]


class Gym:
    """The tasks of a gym folder. Each file is read once, when it is first needed.

    `n_skipped` counts the malformed lines skipped so far; it is always 0 without `skip_malformed`.
    Raises InputError if the folder does not exist.
    """

    def __init__(self, folder: str | os.PathLike, skip_malformed: bool = False):
        self.folder = Path(folder)
        self.skip_malformed = skip_malformed
        self.n_skipped = 0
        self._examples: dict[Path, list[Example]] = {}
        self._files: dict[str, list[tuple[str, str]]] = {}
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder, expected a gym of <task>/<task>_<k>_<seed>_train.tsv files"
            )

    def tasks(self) -> list[str]:
        """Returns the names of the task folders, sorted."""
        return sorted(filter(self._list, os.listdir(self.folder)))

    def samples(self, task: str) -> list[str]:
        """Returns prefixes such as "boolq_16_100", in the order of the files. Raises InputError."""
        if not self._list(task):
            raise InputError(self._missing_task(task))
        return list(dict.fromkeys(sample for sample, _ in self._list(task)))

    def named_samples(self, task: str, samples: str) -> list[str]:
        """Returns the prefixes of a task's samples that `samples` names; [] if there are none.

        samples: "all", "first", a seed ("100") or a prefix ("boolq_16_100").
        Raises InputError for an unknown task.
        """
        known = self.samples(task)
        if samples in ("all", "first"):
            return known if samples == "all" else known[:1]
        return [name for name in known if samples in (name, name.rsplit("_", 1)[-1])]

    def has_part(self, task: str, part: str) -> bool:
        """Returns whether any sample of the task has a file of this part; False for an unknown task."""
        return any(part == part_of_file for _, part_of_file in self._list(task))

    def examples(self, task: str, part: str, samples: str = "all") -> list[Example]:
        """Returns the examples of a task, in the order of its samples; arguments and errors as of `pool`."""
        return self.pool([task], part, samples)

    def pool(
        self, tasks: Iterable[str], part: str, samples: str = "all", limit: int | None = None
    ) -> list[Example]:
        """Returns the examples of several tasks in one list, sorted by task, for multi-task training.

        part: "train", "dev" or "test". samples: as of `named_samples`. limit: number of examples kept from
        the start of each file; None: all. Raises InputError with all problems: unknown task, part or sample,
        missing file, malformed lines, answers that the task's metric cannot use.
        """
        if part not in PARTS:
            raise InputError(f"unknown part '{part}'{did_you_mean(part, PARTS)} (known: {', '.join(PARTS)})")
        problems, pooled = Problems(), []
        for task in sorted(set(tasks)):
            for sample in problems.of(self._chosen_samples, task, samples) or ():
                pooled += (problems.of(self._read, task, sample, part) or [])[:limit]
        if problems:
            raise InputError(problems)
        return pooled

    def templates(self, tasks: Iterable[str]) -> dict[str, str | dict]:
        """Returns {task: `Template.kept` of its inputs} of the tasks that `add-task` has made."""
        files = {task: self.folder / task / PROVENANCE for task in tasks}
        read = {task: load_json_object(path, "sources") for task, path in files.items() if path.is_file()}
        return {task: sources["input"] for task, sources in read.items() if "input" in sources}

    def metric(self, task: str) -> str:
        """Returns the name of a task's metric, from the gym's metrics.json or else from METRICS.

        If neither lists a task `<data set>__<template>`, it is the metric of its data set. Raises InputError
        if that is not listed either, or if metrics.json names an unknown metric.
        """
        name, file = self._metric(task), self.folder / "metrics.json"
        known = f"(one of {', '.join(METRIC_FUNCTIONS)})"
        if name is None:
            raise InputError(
                f"no metric known for task '{task}': write {{\"{task}\": metric}} into {file} {known}"
            )
        if not isinstance(name, str) or name not in METRIC_FUNCTIONS:
            hint = did_you_mean(name, METRIC_FUNCTIONS)
            raise InputError(f"{file}: unknown metric {name!r} for task '{task}'{hint} {known}")
        return name

    def lacking(self, tasks: Iterable[str], split: str | os.PathLike) -> list[str]:
        """Returns one problem with the tasks of a split file that are not there, or []."""
        missing = [task for task in dict.fromkeys(tasks) if not self._list(task)]
        if not missing:
            return []
        problem = self._missing_task(missing[0])
        if len(missing) > 1:
            problem = f"{len(missing)} tasks are not in {self.folder}: {in_short(missing, 20)}"
        published = PUBLISHED_SPLITS / Path(split).name
        restricted = self.folder / SPLITS / published.name
        if published.is_file() and Path(split).resolve() in (published.resolve(), restricted.resolve()):
            problem += f"; use {restricted}, which build-gym writes with those that are there"
        return [f"{split}: {problem}"]

    @cached_property
    def _own_metrics(self) -> dict[str, str]:
        path = self.folder / "metrics.json"
        return load_json_object(path, "a file like {task: metric}") if path.exists() else {}

    def _metric(self, task: str) -> str | None:
        metrics = METRICS | self._own_metrics
        return metrics.get(task, metrics.get(dataset_of(task)))

    def _chosen_samples(self, task: str, samples: str) -> list[str]:
        chosen = self.named_samples(task, samples)
        if not chosen:
            known = ", ".join(self.samples(task))
            raise InputError(f"task '{task}' has no sample '{samples}' (all, first, or one of {known})")
        return chosen

    def _list(self, task: str) -> list[tuple[str, str]]:
        """Returns (sample, part) of every file of the task, in the order of the file names."""
        if task not in self._files:
            folder = self.folder / task
            # os.path.isdir is also False for names that are too long and for links that point to themselves.
            files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            # Other names, such as "._t_16_100_train.tsv" of macOS or "Copy of ...", are no samples.
            matches = map(_FILE_NAME.fullmatch, (name for name in files if name.startswith(f"{task}_")))
            self._files[task] = [(match["sample"], match["part"]) for match in matches if match]
        return self._files[task]

    def _missing_task(self, task: str) -> str:
        if os.path.isdir(self.folder / task):
            return f"{self.folder / task} has no {task}_<k>_<seed>_{{train,dev,test}}.tsv or .jsonl file"
        known = self.tasks()
        hint = did_you_mean(task, known)
        return f"no task '{task}' in {self.folder}{hint} ({len(known)} tasks there, one folder each)"

    def _read(self, task: str, sample: str, part: str) -> list[Example]:
        stem = self.folder / task / f"{sample}_{part}"
        if stem in self._examples:
            return self._examples[stem]
        tsv, jsonl = (stem.with_name(f"{stem.name}.{ending}") for ending in ("tsv", "jsonl"))
        if tsv.exists() and jsonl.exists():
            raise InputError(f"{tsv} and {jsonl.name} both exist; keep only one of them")
        if not tsv.exists() and not jsonl.exists():
            raise InputError(f"{tsv}: no such file, and no {jsonl.name}")
        path = tsv if tsv.exists() else jsonl
        metric = None if part == "train" else self._metric(task)
        rows, n_skipped = read_task_file(path, self.skip_malformed, metric)
        self.n_skipped += n_skipped
        self._examples[stem] = [Example(task, sample, *row) for row in rows]
        return self._examples[stem]


def tasks_named(
    words: Sequence[str], split: str | os.PathLike, folder: str | os.PathLike | None = None
) -> list[str]:
    """Returns the tasks that the words name, each once and in order.

    words: task names, sections of `split` (`test`), or sections of other split files (`file.json:test`).
    folder: the gym that must have the tasks; None: any.
    Raises InputError for an unknown or empty section, or tasks that the gym lacks.
    """
    tasks, gym = [], None if folder is None else Gym(folder)
    for word in words:
        path, _, section = word.rpartition(":")
        if path.endswith(".json") or word in (*SECTIONS, "all"):
            chosen = load_split(path or split).section(section)
            if not chosen:
                raise InputError(f"{path or split}: the {section} section is empty")
            problems = gym.lacking(chosen, path or split) if gym else []
        elif word.endswith(".json"):
            raise InputError(f"{word}: expected file.json:section, such as {word}:test")
        else:
            chosen, problems = [word], []
            if gym and word not in (known := gym.tasks()):
                guess = did_you_mean(word, [*known, *SECTIONS, "all"])
                problems = [f"no task '{word}' in {folder}{guess}"]
        if problems:
            raise InputError(problems)
        tasks += chosen
    return list(dict.fromkeys(tasks))
