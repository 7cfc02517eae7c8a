"""A folder of few-shot tasks in the CrossFit format.

    <gym>/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv     a line: input TAB answer [TAB another answer ...]
    <gym>/<task>/<task>_<k>_<seed>_{train,dev,test}.jsonl   or JSON lines, which may have answer options
    <gym>/metrics.json                                      optional: {task: metric}, for tasks of your own

"boolq_32_100" is a *sample* of the task boolq: its train, dev and test file were drawn with seed 100. Each
of the three may have either ending; `task_files.py` says what stands in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dataloader.errors import InputError, did_you_mean
from dataloader.jsonfile import load_json_object
from dataloader.metrics import METRIC_FUNCTIONS, METRICS, answer_fault
from dataloader.task_files import FAULTS_SHOWN, MalformedLines, describe, read_task_file, read_tsv

__all__ = ["PARTS", "Example", "Gym", "read_tsv"]

PARTS = ("train", "dev", "test")
ENDINGS = (".tsv", ".jsonl")

_FILE_NAME = re.compile(r"(?P<sample>.+)_(?P<part>train|dev|test)\.(?:tsv|jsonl)")


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a task file; `sample` is the file's prefix, `outputs` are the accepted answers.

    options: the answers to choose from, where the file has them; () where it does not.
    """

    task: str
    sample: str
    input: str
    outputs: tuple[str, ...]
    options: tuple[str, ...] = ()


def evenly_spread(examples: list, most: int | None) -> list:
    """At most so many of the examples (None: all), in their order: few-shot files are sorted by label, their
    first ones have but one."""
    n = len(examples) if most is None else min(len(examples), most)
    return [examples[index] for index in np.linspace(0, len(examples) - 1, n).round().astype(int)]


class Gym:
    """The tasks of a gym folder. A file is read when first asked for, once.

    `n_skipped` counts the malformed lines left out so far, always 0 without `skip_malformed`.
    Raises InputError if the folder does not exist.
    """

    def __init__(self, folder: str | os.PathLike, skip_malformed: bool = False):
        self.folder = Path(folder)
        self.skip_malformed = skip_malformed
        self.n_skipped = 0
        self._examples: dict[tuple[str, str, str], list[Example] | InputError] = {}
        self._listed: dict[str, list[tuple[str, str]]] = {}
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder, expected a gym of <task>/<task>_<k>_<seed>_train.tsv files"
            )

    def tasks(self) -> list[str]:
        """Names of the task folders, sorted."""
        return sorted(name for name in os.listdir(self.folder) if self._find_samples(name))

    def samples(self, task: str) -> list[str]:
        """Prefixes such as "boolq_32_100", in the order of the file names; InputError for an unknown task."""
        found = self._find_samples(task)
        if not found:
            raise InputError(self._missing_task(task))
        return list(found)

    def has_sample(self, task: str, sample: str) -> bool:
        """Whether a task has a sample of this seed ("100") or whole prefix ("boolq_32_100")."""
        return sample not in ("all", "first") and bool(self.named_samples(task, sample))

    def named_samples(self, task: str, samples: str) -> list[str]:
        """Prefixes of a task's samples: "all", "first", or of a seed or whole prefix; [] if none has it.

        Raises InputError for an unknown task.
        """
        known = self.samples(task)
        if samples in ("all", "first"):
            return known if samples == "all" else known[:1]
        return [name for name in known if samples in (name, name.rsplit("_", 1)[-1])]

    def has_part(self, task: str, part: str) -> bool:
        """Whether there is a file of this part for some sample of the task; False for an unknown task."""
        return any(part == there for _, there in self._list(task))

    def examples(self, task: str, part: str, samples: str = "all") -> list[Example]:
        """Examples of one task, part "train", "dev" or "test", sample after sample.

        `samples`: "all", "first", or one sample by its seed ("100") or its whole prefix ("boolq_32_100").
        Raises InputError with every fault: unknown task, part or sample, missing file, malformed lines.
        """
        return self.pool([task], part, samples)

    def pool(
        self, tasks: Iterable[str], part: str, samples: str = "all", limit: int | None = None
    ) -> list[Example]:
        """Examples of many tasks in one list, sorted by task: what multi-task training draws from.

        `limit` keeps the first so many examples of each file; None: all. Raises like `examples`, with the
        faults of all tasks together.
        """
        faults: list[str] = []
        pooled: list[Example] = []
        for task in sorted(set(tasks)):
            try:
                for sample in self._chosen_samples(task, part, samples):
                    pooled += self._read(task, sample, part)[:limit]
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(dict.fromkeys(faults))
        return pooled

    def metric(self, task: str) -> str:
        """Name of the metric a task is scored by: from the gym's metrics.json, else from METRICS.

        Raises InputError if neither knows the task, or if metrics.json names a metric that does not exist.
        """
        name = self._own_metrics.get(task, METRICS.get(task))
        known = f"(one of {', '.join(METRIC_FUNCTIONS)})"
        file = self.folder / "metrics.json"
        if name is None:
            raise InputError(
                f"no metric known for task '{task}': write {{\"{task}\": metric}} into {file} {known}"
            )
        if not isinstance(name, str) or name not in METRIC_FUNCTIONS:
            hint = did_you_mean(name, METRIC_FUNCTIONS)
            raise InputError(f"{file}: unknown metric {name!r} for task '{task}'{hint} {known}")
        return name

    def check(
        self, tasks: Iterable[str], parts: Iterable[str] = PARTS, samples: str = "all", metrics: bool = True
    ) -> list[str]:
        """Returns every fault that reading and scoring these tasks would meet, without raising; [] if none.

        Reads (and keeps) all files concerned. `metrics`: False leaves out whether each task has a metric
        and whether this can score against the answers of the dev and test parts.
        """
        faults: list[str] = []
        malformed: dict[Path, MalformedLines] = {}
        parts = list(parts)
        for task in sorted(set(tasks)):
            if metrics:
                faults += _faults_of(self.metric, task)
            for part in parts:
                try:
                    faults += self._part_faults(task, part, samples, metrics and part != "train", malformed)
                except InputError as error:
                    faults += error.faults
        if malformed:
            faults.append(describe(list(malformed.values())))
        return list(dict.fromkeys(faults))  # a missing task is missing once, not once a part

    @cached_property
    def _own_metrics(self) -> dict[str, str]:
        path = self.folder / "metrics.json"
        return load_json_object(path, "a file like {task: metric}") if path.exists() else {}

    def _part_faults(self, task, part, samples, scored: bool, malformed: dict) -> list[str]:
        """Faults of a part's files, those of malformed lines aside, which go into `malformed`."""
        faults: list[str] = []
        for sample in self._chosen_samples(task, part, samples):
            try:
                examples = self._read(task, sample, part)
            except MalformedLines as error:
                malformed[error.path] = error
                continue
            except InputError as error:
                faults += error.faults
                continue
            if scored and not _faults_of(self.metric, task):
                answers = dict.fromkeys(example.outputs[0] for example in examples)
                unusable = (answer_fault(answer, self.metric(task)) for answer in answers)
                path = self._path(task, sample, part)
                faults += [f"{path}: {fault}" for fault in unusable if fault][:FAULTS_SHOWN]
        return faults

    def _chosen_samples(self, task: str, part: str, samples: str) -> list[str]:
        """Prefixes of the samples chosen; InputError for an unknown part, task or sample."""
        if part not in PARTS:
            raise InputError(f"unknown part '{part}'{did_you_mean(part, PARTS)} (known: {', '.join(PARTS)})")
        chosen = self.named_samples(task, samples)
        if not chosen:
            known = ", ".join(self.samples(task))
            raise InputError(f"task '{task}' has no sample '{samples}' (all, first, or one of {known})")
        return chosen

    def _find_samples(self, task: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(sample for sample, _ in self._list(task)))

    def _list(self, task: str) -> list[tuple[str, str]]:
        """(sample, part) of every file of the task, in the order of the file names."""
        if task not in self._listed:
            folder = self.folder / task
            # os.path.isdir is also False for names that are too long and for links to themselves.
            files = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            matches = (_FILE_NAME.fullmatch(name) for name in files)
            self._listed[task] = [(match["sample"], match["part"]) for match in matches if match]
        return self._listed[task]

    def _path(self, task: str, sample: str, part: str) -> Path:
        """The part's file. Raises InputError if there is none, or one of either ending."""
        stem = self.folder / task / f"{sample}_{part}"
        paths = [stem.with_name(f"{stem.name}{ending}") for ending in ENDINGS]
        there = [path for path in paths if path.exists()]
        if len(there) > 1:
            raise InputError(f"{there[0]} and {there[1].name} are both there; keep the one that counts")
        if not there:
            raise InputError(f"{paths[0]}: no such file, nor {paths[1].name}")
        return there[0]

    def _missing_task(self, task: str) -> str:
        if os.path.isdir(self.folder / task):
            return f"{self.folder / task}: has no {task}_<k>_<seed>_{{train,dev,test}}.tsv or .jsonl file"
        known = self.tasks()
        hint = did_you_mean(task, known)
        return f"no task '{task}' in {self.folder}{hint} ({len(known)} tasks there, one folder each)"

    def _read(self, task: str, sample: str, part: str) -> list[Example]:
        key = (task, sample, part)
        if key not in self._examples:
            try:
                rows, n_skipped = read_task_file(self._path(task, sample, part), self.skip_malformed)
                self.n_skipped += n_skipped
                self._examples[key] = [Example(task, sample, *row) for row in rows]
            except InputError as error:
                self._examples[key] = error
        found = self._examples[key]
        if isinstance(found, InputError):
            raise found
        return found


def _faults_of(call, *arguments) -> list[str]:
    try:
        call(*arguments)
    except InputError as error:
        return error.faults
    return []
