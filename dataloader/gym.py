"""A folder of few-shot tasks in the CrossFit format.

    <gym>/<task>/<task>_<k>_<seed>_{train,dev,test}.tsv   a line: input TAB answer [TAB another answer ...]
    <gym>/metrics.json                                    optional: {task: metric}, for tasks of your own

"boolq_32_100" is a *sample* of the task boolq: its train, dev and test file were drawn with seed 100.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dataloader.errors import InputError, did_you_mean
from dataloader.jsonfile import load_json_object
from dataloader.metrics import METRIC_FUNCTIONS, METRICS, answer_fault

PARTS = ("train", "dev", "test")
FAULTS_SHOWN = 5
FILES_SHOWN = 3

_FILE_NAME = re.compile(r"(?P<sample>.+)_(?:train|dev|test)\.tsv")
_BOM = b"\xef\xbb\xbf"
_BOM_FAULT = "starts with a byte order mark; save it as UTF-8 without BOM"

Row = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a task file; `sample` is the file's prefix, `outputs` are the accepted answers."""

    task: str
    sample: str
    input: str
    outputs: tuple[str, ...]


class MalformedLines(InputError):
    """The malformed lines of one file; `Gym.check` tells those of several files as one fault."""

    def __init__(self, path: Path, lines: list[tuple[int, str]]):
        self.path, self.lines = path, lines
        super().__init__(_describe([self]))


# ---------------------------------------------------------------------------- one file


def read_tsv(path: str | os.PathLike, skip_malformed: bool = False) -> tuple[list[Row], int]:
    """Reads one task file: ([(input, (answer, ...)), ...], number of lines skipped).

    Lines end at "\\n" or "\\r\\n" and nowhere else: texts do hold other line separators. Spaces around a
    field and empty answers beside a real one are dropped. Malformed is a line that is blank, has no tab, an
    empty input or only empty answers, a carriage return inside, or bytes that are not UTF-8; and a byte
    order mark at the file's start.

    Raises one InputError for all malformed lines of the file. With `skip_malformed` these are left out and
    counted (a byte order mark is dropped and its line kept). A file without any usable line is an error.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    faults: list[tuple[int, str]] = []
    if content.startswith(_BOM):
        content = content.removeprefix(_BOM)
        if not skip_malformed:
            faults.append((1, _BOM_FAULT))
    if not content:
        raise InputError(f"{path}: is empty, expected lines of input TAB answer")
    rows: list[Row] = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        row = _parse_line(line.removesuffix(b"\r"))
        if isinstance(row, str):
            faults.append((number, row))
        else:
            rows.append(row)
    if faults and not skip_malformed:
        raise MalformedLines(path, faults)
    if not rows:
        raise InputError(
            f"{path}: has no usable line, all {len(faults)} are malformed, such as: {faults[0][1]}"
        )
    return rows, len(faults)


def _parse_line(line: bytes) -> Row | str:
    """Returns the row, or what is wrong with the line."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line is not UTF-8"
    if not text.strip():
        return "blank line"
    if "\r" in text:
        return "carriage return inside the line"
    # Split before stripping: a strip of the whole line would move the answer into an empty input.
    source, *answers = (field.strip() for field in text.split("\t"))
    if not answers:
        return "no answer (no tab in the line)"
    outputs = tuple(answer for answer in answers if answer)
    if not source and outputs:
        return "empty input"
    return (source, outputs) if outputs else "empty answer"


def _describe(files: list[MalformedLines]) -> str:
    """One message: how many lines of which files are malformed, and the first few of them."""
    every = [f"{file.path}:{number}: {fault}" for file in files for number, fault in file.lines]
    where = ", ".join(str(file.path) for file in files[:FILES_SHOWN])
    where += f" and {len(files) - FILES_SHOWN} more files" if len(files) > FILES_SHOWN else ""
    more = f", the first {FAULTS_SHOWN} of them" if len(every) > FAULTS_SHOWN else ""
    count = f"{len(every)} malformed line" + ("s" if len(every) > 1 else "")
    head = f"{where}: {count}{more} (--skip_malformed leaves them out):"
    return "\n  ".join([head, *every[:FAULTS_SHOWN]])


# ---------------------------------------------------------------------------- the folder


class Gym:
    """The tasks of a gym folder. A file is read when first asked for, once.

    `n_skipped` counts the malformed lines left out so far, always 0 without `skip_malformed`.
    Raises InputError if the folder does not exist.
    """

    def __init__(self, folder: str | os.PathLike, skip_malformed: bool = False):
        self.folder = Path(folder)
        self.skip_malformed = skip_malformed
        self.n_skipped = 0
        self._examples: dict[Path, list[Example] | InputError] = {}
        self._samples: dict[str, tuple[str, ...]] = {}
        if not self.folder.is_dir():
            raise InputError(
                f"{self.folder}: no such folder, expected a gym of <task>/<task>_<k>_<seed>_train.tsv files"
            )

    def tasks(self) -> list[str]:
        """Names of the task folders, sorted."""
        folders = (entry.name for entry in os.scandir(self.folder) if entry.is_dir())
        return sorted(name for name in folders if self._find_samples(name))

    def samples(self, task: str) -> list[str]:
        """Prefixes such as "boolq_32_100", in the order of the file names; InputError for an unknown task."""
        found = self._find_samples(task)
        if not found:
            raise InputError(self._missing_task(task))
        return list(found)

    def has_sample(self, task: str, sample: str) -> bool:
        """Whether a task has a sample of this seed ("100") or whole prefix ("boolq_32_100")."""
        return bool(self._named_samples(self.samples(task), sample))

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
                for path, sample in self._files(task, part, samples):
                    pooled += self._read(path, task, sample)[:limit]
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
            faults.append(_describe(list(malformed.values())))
        return list(dict.fromkeys(faults))  # a missing task is missing once, not once a part

    @cached_property
    def _own_metrics(self) -> dict[str, str]:
        path = self.folder / "metrics.json"
        return load_json_object(path, "a file like {task: metric}") if path.exists() else {}

    def _part_faults(self, task, part, samples, scored: bool, malformed: dict) -> list[str]:
        """Faults of a part's files, those of malformed lines aside, which go into `malformed`."""
        faults: list[str] = []
        for path, sample in self._files(task, part, samples):
            try:
                examples = self._read(path, task, sample)
            except MalformedLines as error:
                malformed[path] = error
                continue
            except InputError as error:
                faults += error.faults
                continue
            if scored and not _faults_of(self.metric, task):
                answers = dict.fromkeys(example.outputs[0] for example in examples)
                unusable = (answer_fault(answer, self.metric(task)) for answer in answers)
                faults += [f"{path}: {fault}" for fault in unusable if fault][:FAULTS_SHOWN]
        return faults

    def _files(self, task: str, part: str, samples: str) -> list[tuple[Path, str]]:
        """[(file, sample), ...] of the samples chosen; InputError for an unknown part, task or sample."""
        if part not in PARTS:
            raise InputError(f"unknown part '{part}'{did_you_mean(part, PARTS)} (known: {', '.join(PARTS)})")
        known = self.samples(task)
        if samples == "all":
            chosen = known
        elif samples == "first":
            chosen = known[:1]
        else:
            chosen = self._named_samples(known, samples)
        if not chosen:
            raise InputError(
                f"task '{task}' has no sample '{samples}' (all, first, or one of {', '.join(known)})"
            )
        return [(self.folder / task / f"{sample}_{part}.tsv", sample) for sample in chosen]

    @staticmethod
    def _named_samples(known: list[str], sample: str) -> list[str]:
        return [name for name in known if sample in (name, name.rsplit("_", 1)[-1])]

    def _find_samples(self, task: str) -> tuple[str, ...]:
        if task not in self._samples:
            folder = self.folder / task
            files = sorted(os.listdir(folder)) if folder.is_dir() else []
            matches = (_FILE_NAME.fullmatch(name) for name in files)
            self._samples[task] = tuple(dict.fromkeys(match["sample"] for match in matches if match))
        return self._samples[task]

    def _missing_task(self, task: str) -> str:
        if (self.folder / task).is_dir():
            return f"{self.folder / task}: has no {task}_<k>_<seed>_{{train,dev,test}}.tsv file"
        known = self.tasks()
        hint = did_you_mean(task, known)
        return f"no task '{task}' in {self.folder}{hint} ({len(known)} tasks there, one folder each)"

    def _read(self, path: Path, task: str, sample: str) -> list[Example]:
        if path not in self._examples:
            try:
                rows, n_skipped = read_tsv(path, self.skip_malformed)
                self.n_skipped += n_skipped
                self._examples[path] = [Example(task, sample, source, outputs) for source, outputs in rows]
            except InputError as error:
                self._examples[path] = error
        found = self._examples[path]
        if isinstance(found, InputError):
            raise found
        return found


def _faults_of(call, *arguments) -> list[str]:
    try:
        call(*arguments)
    except InputError as error:
        return error.faults
    return []
