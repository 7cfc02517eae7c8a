"""A folder of task vectors that is filled task by task.

    run.json  log.txt                       settings, versions, checksums of the model; what happened
    by_task/<task>.npz                      a finished task: vector, checksum of its data, seconds
    id2task.json  task_vecs.npy  meta.json  the vectors of all tasks, once all are finished

With --samples each, samples (such as boolq_32_100) take the place of tasks: every sample has a file and a
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
from tqdm import tqdm

from dataloader.atomic_files import write_text
from dataloader.checksums import sha256_of
from dataloader.errors import InputError
from dataloader.jsonfile import load_json_object
from routing_moe.checkpoints.find import same_files
from routing_moe.config.flags import differences, existing_paths
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes, unwritable
from routing_moe.io.job_folder import JobFolder
from routing_moe.io.run_folder import describe_run
from routing_moe.model.task_vectors import META_FILE, NAMES_FILE, VECTORS_FILE, save_task_vectors
from task.task_emb.settings import VectorSettings

RUN_FILE = "run.json"
# Values of settings that earlier versions did not have.
ADDED_LATER = {"task_names": False}
MODEL_SETTINGS = {"model", "tokenizer", "encoder"}

log = logging.getLogger("routing_moe")
_extractors: dict = {}  # {settings: extractor}, at most one: the model that this process has loaded


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished vector (D,) float32, the checksum of its data, the seconds it took, its task and its parts.

    The task is "" in files of earlier versions, which had no vectors of samples. parts: JSON,
    {part: [start, end]}; {} for methods without parts.
    """

    vector_D: np.ndarray
    data: str
    seconds: float
    task: str = ""
    parts: str = "{}"


def compute(settings: VectorSettings, task: str) -> tuple[np.ndarray, float, str]:
    """Returns (vector (D,) float32, seconds, parts) of a task.

    The first call with these settings loads the extractor.
    Raises FloatingPointError if the vector is not finite.
    """
    from routing_moe.io.process_pool import traceback_noted  # imports torch

    if settings not in _extractors:
        _extractors.clear()
        _extractors[settings] = settings.extractor()
    start = time.perf_counter()
    with traceback_noted():
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
        self, settings: VectorSettings, data: Mapping[str, str], model: Mapping[str, str], tasks=None
    ):
        self.settings, self.data, self.model = settings, dict(data), dict(model)
        self.tasks = dict(tasks or {task: task for task in data})
        self.folder = Path(settings.output_dir)
        self.finished: dict[str, Finished] = {}
        self.by_task = JobFolder(
            self.folder / "by_task", read_finished, "compute that vector again", ending=".npz"
        )

    def faults(self) -> list[str]:
        """Reasons why the folder cannot be written or continued.

        Settings may differ from those of an earlier call as long as no task is finished in the folder.
        """
        if reason := unwritable(self.folder):
            return [f"--output_dir {reason}"]
        run = self.folder / RUN_FILE
        if not run.is_file():
            names = (NAMES_FILE, VECTORS_FILE, "config.json", "results.csv")
            foreign = [name for name in names if (self.folder / name).exists()]
            other = (
                f"--output_dir {self.folder} holds {' and '.join(foreign)}, which this command did not "
                "write; name another folder"
            )
            return [other] if foreign else []
        saved = load_json_object(run, "the description of a folder of task vectors")
        if not isinstance(saved.get("settings", {}), dict):
            return [f"{run} is damaged; delete {self.folder}, or name another folder"]
        if saved.get("method") is None:
            return [f"--output_dir {self.folder} holds a run of another command; name another folder"]
        if not self.by_task.names() and not (self.folder / VECTORS_FILE).exists():
            return []
        if saved["method"] != self.settings.method:
            return [
                f"--output_dir {self.folder} holds vectors of the method {saved['method']!r}, not "
                f"{self.settings.method!r}; name another folder"
            ]
        existing = existing_paths(self.settings)
        if not saved.get("model"):  # of the hub, from an earlier version that had no checksums of it
            existing -= MODEL_SETTINGS
        before = ADDED_LATER | saved.get("settings", {})
        faults = differences(self.settings, before, f"the vectors in {self.folder}", ignored=existing)
        if self.model and not same_files(saved.get("model"), self.model):
            faults.append(
                f"--output_dir {self.folder}: its vectors were computed with a model whose files differ from "
                "those of the given model"
            )
        return [*faults[:-1], f"{faults[-1]}; name another --output_dir"] if faults else []

    def load(self) -> None:
        """Reads the finished vectors. Raises InputError for a damaged file, or if the data has changed."""
        self.finished = {}
        for task in self.by_task.names():
            found = self.by_task.finished(task)
            if found.data != self.data.get(task, found.data):
                raise InputError(
                    f"{self.by_task.path(task)}: the data of {task} has changed since; delete the file to "
                    "compute that vector again, or name another --output_dir"
                )
            self.finished[task] = found

    @property
    def missing(self) -> list[str]:
        """Requested tasks that are not finished."""
        return [task for task in self.data if task not in self.finished]

    def keep(self, task: str, vector_D: np.ndarray, seconds: float, parts: str) -> None:
        """Saves the vector of a finished task."""
        self.finished[task] = found = Finished(vector_D, self.data[task], seconds, self.tasks[task], parts)
        self.by_task.write(task, npz_bytes(**vars(found)))

    def run(self, command: list[str] | None) -> dict[str, Exception]:
        """Computes the missing vectors, then writes the files of all tasks, unless a task failed.

        Returns {line that names the task: its error} of the tasks that failed.
        """
        self.load()  # again, now that this command has locked the folder
        write_text(self.folder / RUN_FILE, json.dumps(self.described(command), indent=1))
        total = len(self.data)
        model = getattr(self.settings, "model", None)
        log.info("%s vectors of %d tasks, %d already finished%s", self.settings.method, total,
                 total - len(self.missing), f"; model: {model}" if model else "")  # fmt: skip
        bar = tqdm(
            total=total,
            initial=total - len(self.missing),
            desc=self.settings.method,
            unit="task",
            disable=self.settings.quiet,
        )
        failed = self.by_task.collect(self.outcomes(), lambda task, result: self.keep(task, *result), bar)
        if self.finished and not failed:
            self.write(command)
        return failed

    def outcomes(self):
        """Yields (task, result of `compute` or its error) for each missing task, in order of completion."""
        if not self.missing:
            return
        from routing_moe.io.process_pool import run_here, run_in_processes  # imports torch

        workers = min(self.settings.num_workers, len(self.missing))
        if workers > 1:
            quiet = dataclasses.replace(self.settings, quiet=True)
            yield from run_in_processes(compute, {task: (quiet, task) for task in self.missing}, workers)
            return
        try:
            yield from run_here(compute, {task: (self.settings, task) for task in self.missing})
        finally:
            _extractors.clear()

    def described(self, command: list[str] | None) -> dict:
        settings = self.settings.to_dict()
        return {"method": self.settings.method, "model": self.model} | describe_run(settings, command)

    def write(self, command: list[str] | None) -> None:
        """Writes the files of all tasks, meta.json last. Raises InputError if vectors differ in dimension."""
        tasks = sorted(self.finished)
        sample_of = {sample: self.finished[sample].task for sample in tasks if self.settings.of_each_sample}
        widths = {len(self.finished[task].vector_D) for task in tasks}
        if len(widths) > 1:
            raise InputError(
                f"{self.folder}/by_task has vectors of {' and '.join(map(str, sorted(widths)))} dimensions, "
                "expected the same for all; delete the folder"
            )
        data = {task: self.finished[task].data for task in tasks}
        seconds = [self.finished[task].seconds for task in tasks]
        parts = json.loads(self.finished[tasks[0]].parts)  # equal for all, as settings and model are
        meta = {
            "method": self.settings.method,
            "model": getattr(self.settings, "model", None),
            "dimension": widths.pop(),
            "tasks": len(set(sample_of.values()) or tasks),
            "seen": self.settings.seen,
            **({"sample_of": sample_of} if sample_of else {}),
            **({"parts": parts} if parts else {}),
            "data_hash": sha256_of(part for item in data.items() for part in item),
            "seconds_per_task": {"mean": float(np.mean(seconds)), "max": float(np.max(seconds))},
        }
        meta |= {k: v for k, v in self.described(command).items() if k not in meta}
        meta |= {"model_files": self.model, "data": data}
        rows = {task: self.finished[task].vector_D for task in tasks}
        for sample in sorted(sample_of, key=lambda name: f"{name}_"):  # in the gym's order: by file names
            rows.setdefault(sample_of[sample], rows[sample])
        rows = dict(sorted(rows.items()))
        save_task_vectors(self.folder, list(rows), np.stack(list(rows.values())))
        write_text(self.folder / META_FILE, json.dumps(meta, indent=1))


def read_finished(path: Path) -> Finished:
    """Returns the content of a file of by_task/. Raises ValueError if its arrays are not of a vector."""
    found = load_arrays(path, ("vector_D", "data", "seconds"), optional=("task", "parts"))
    vector_D = found["vector_D"]
    if vector_D.ndim != 1 or not np.issubdtype(vector_D.dtype, np.floating):
        raise ValueError("no vector")
    task = str(found["task"]) if "task" in found else ""
    parts = str(found["parts"]) if "parts" in found else "{}"
    if not isinstance(json.loads(parts), dict):
        raise ValueError("no parts")
    return Finished(vector_D, str(found["data"]), float(found["seconds"]), task, parts)
