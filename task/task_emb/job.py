"""A folder of task vectors that is filled task by task.

    run.json  log.txt                       settings, versions, checksums of the model; what happened
    by_task/<task>.npz                      a finished task: vector, checksum of its data, seconds
    id2task.json  task_vecs.npy  meta.json  the vectors of all tasks, once all are finished

With --samples each, samples (such as boolq_16_100) take the place of tasks: every sample has a file and a
row. Every task also has a row, that of its first sample, as with --samples first.

See `JobFolder` for how an interrupted job continues. The three files of all tasks only depend on by_task/.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.checksums import sha256_of
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object, parse_json
from dataloader.progress import ProgressBar
from routing_moe.config.flags import differences, existing_paths
from routing_moe.io.arrays import load_arrays
from routing_moe.io.executor import run_calls
from routing_moe.io.files import npz_bytes, unwritable
from routing_moe.io.job_folder import JobFolder
from routing_moe.io.run_folder import describe_run, foreign_problems, load_run_settings
from routing_moe.model.task_vectors import META_FILE, NAMES_FILE, VECTORS_FILE, save_task_vectors
from task.task_emb.settings import VectorSettings

log = logging.getLogger("routing_moe")
_extractors: dict = {}  # {settings: extractor}, at most one: the model that this process has loaded


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished vector (D,) float32, the checksum of its data, seconds, its task and its parts.

    parts: JSON, {part: [start, end]}; {} for methods without parts.
    """

    vector_D: np.ndarray
    data: str
    seconds: float
    task: str
    parts: str


def compute(settings: VectorSettings, task: str) -> tuple[np.ndarray, float, str]:
    """Returns (vector (D,) float32, seconds, parts) of a task.

    The first call with these settings loads the extractor.
    Raises FloatingPointError if the vector is not finite.
    """
    if settings not in _extractors:
        _extractors.clear()
        _extractors[settings] = settings.extractor()
    start = time.perf_counter()
    vector_D = np.asarray(_extractors[settings].vector_of(task), dtype=np.float32)
    if not np.isfinite(vector_D).all():
        raise FloatingPointError("the vector has values that are not finite")
    parts = json.dumps(getattr(_extractors[settings], "parts", {}))
    return vector_D, time.perf_counter() - start, parts


class VectorJob:
    """Computes the vectors of the tasks in `data` into `settings.output_dir`, which may hold finished ones.

    data: {task: checksum of its data}; model: {file: checksum}. tasks: {sample: its task} if vectors are
    computed per sample; "task" then means a sample in the rest of the class.
    """

    def __init__(
        self,
        settings: VectorSettings,
        data: Mapping[str, str],
        model: Mapping[str, str],
        tasks: Mapping[str, str],
    ):
        self.settings, self.data, self.model, self.tasks = settings, dict(data), dict(model), dict(tasks)
        self.folder = Path(settings.output_dir)
        self.finished: dict[str, Finished] = {}
        self.by_task = JobFolder(
            self.folder / "by_task", read_finished, "compute that vector again", ending=".npz"
        )

    def check_folder(self) -> None:
        """Raises InputError if the folder cannot be written or continued.

        Settings may differ from those of an earlier call as long as no task is finished in the folder.
        """
        if reason := unwritable(self.folder):
            raise InputError(f"--output_dir {reason}")
        saved = load_run_settings(self.folder)
        if saved is None:
            problems = foreign_problems(self.folder, (NAMES_FILE, VECTORS_FILE, "config.json", "results.csv"))
            if problems:
                raise InputError(problems)
            return
        described = load_json_object(self.folder / "run.json", "the description of a folder of task vectors")
        method = described.get("method")
        if method and not self.by_task.names():
            return
        if method != self.settings.method:
            other = f"vectors of the method {method!r}" if method else "a run of another command"
            raise InputError(f"--output_dir {self.folder} holds {other}; name another folder")
        where = f"the vectors in {self.folder}"
        problems = differences(self.settings, saved, where, ignored=existing_paths(self.settings))
        if self.model and described.get("model") != self.model:
            problems.append(
                f"--output_dir {self.folder}: its vectors were computed with a model whose files differ from "
                "those of the given model"
            )
        if problems:
            raise InputError([*problems[:-1], f"{problems[-1]}; name another --output_dir"])

    def load(self) -> None:
        """Reads the finished vectors. Raises InputError for a damaged file, or if the data has changed."""
        self.finished = {task: self.by_task.finished(task) for task in self.by_task.names()}
        for task, vector in self.finished.items():
            if vector.data != self.data.get(task, vector.data):
                raise InputError(
                    f"{self.by_task.path(task)}: the data of {task} has changed since; delete the file to "
                    "compute that vector again, or name another --output_dir"
                )

    @property
    def missing(self) -> list[str]:
        """Requested tasks that are not finished."""
        return [task for task in self.data if task not in self.finished]

    def keep(self, task: str, vector_D: np.ndarray, seconds: float, parts: str) -> None:
        """Saves the vector of a finished task."""
        self.finished[task] = Finished(vector_D, self.data[task], seconds, self.tasks[task], parts)
        self.by_task.write(task, npz_bytes(**vars(self.finished[task])))

    def run(self, command: list[str]) -> dict[str, Exception]:
        """Computes the missing vectors, then writes the files of all tasks, unless a task failed.

        Returns {line that names the task: its error} of the tasks that failed.
        """
        self.load()  # again, now that this command has locked the folder
        described = {"method": self.settings.method, "model": self.model}
        described |= describe_run(self.settings.to_dict(), command)
        write_text(self.folder / "run.json", json.dumps(described, indent=1))
        total, method, model = len(self.data), self.settings.method, getattr(self.settings, "model", None)
        n_finished = total - len(self.missing)
        of_model = f"; model: {model}" if model else ""
        log.info("%s vectors of %d tasks, %d already finished%s", method, total, n_finished, of_model)
        quiet = self.settings.quiet
        bar = ProgressBar(total=total, initial=n_finished, desc=method, unit="task", disable=quiet)
        failed = self.by_task.collect(self.outcomes(), lambda task, result: self.keep(task, *result), bar)
        if self.finished and not failed:
            self.write(command)
        return failed

    def outcomes(self):
        """Yields (task, result of `compute` or its error) for each missing task, in order of completion."""
        workers = min(self.settings.num_workers, len(self.missing))
        quiet = self.settings.quiet or workers > 1
        settings = dataclasses.replace(self.settings, quiet=quiet)
        try:
            yield from run_calls(compute, {task: (settings, task) for task in self.missing}, workers)
        finally:
            _extractors.clear()

    def write(self, command: list[str]) -> None:
        """Writes the files of all tasks, meta.json last."""
        finished = dict(sorted(self.finished.items()))
        seconds = [vector.seconds for vector in finished.values()]
        rows = {name: vector.vector_D for name, vector in finished.items()}
        sample_of = {name: vector.task for name, vector in finished.items() if self.settings.of_each_sample}
        for sample in sorted(sample_of, key=lambda name: f"{name}_"):  # in the gym's order: by file names
            rows.setdefault(sample_of[sample], rows[sample])
        vectors_ND = np.stack([rows[name] for name in sorted(rows)])
        data = {name: vector.data for name, vector in finished.items()}
        parts = parse_json(next(iter(finished.values())).parts)  # equal for all, as settings and model are
        meta = {
            "method": self.settings.method,
            "model": getattr(self.settings, "model", None),
            "dimension": vectors_ND.shape[1],
            "tasks": len(set(sample_of.values()) or finished),
            "seen": self.settings.seen,
            **({"sample_of": sample_of} if sample_of else {}),
            **({"parts": parts} if parts else {}),
            "data_hash": sha256_of(part for item in data.items() for part in item),
            "seconds_per_task": {"mean": float(np.mean(seconds)), "max": float(np.max(seconds))},
            **describe_run(self.settings.to_dict(), command),
            "model_files": self.model,
            "data": data,
        }
        save_task_vectors(self.folder, sorted(rows), vectors_ND)
        write_text(self.folder / META_FILE, json.dumps(meta, indent=1))


def read_finished(path: Path) -> Finished:
    """Returns the content of a file of by_task/. Raises ValueError if its arrays are not of a vector."""
    arrays = load_arrays(path, Finished.__dataclass_fields__)
    vector_D = arrays["vector_D"]
    if vector_D.ndim != 1 or not np.issubdtype(vector_D.dtype, np.floating):
        raise ValueError("no vector")
    finished = Finished(
        vector_D,
        *(str(arrays["data"]), float(arrays["seconds"]), str(arrays["task"]), str(arrays["parts"])),
    )
    if not isinstance(parse_json(finished.parts), dict):
        raise ValueError("no parts")
    return finished
