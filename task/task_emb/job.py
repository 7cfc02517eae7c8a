"""The loop of all methods: fills a folder of task vectors, task by task.

    run.json  log.txt                       settings, versions, checksums of model and data; what happened
    by_task/<task>.npz                      a finished vector
    id2task.json  task_vecs.npy  meta.json  all vectors, once all are finished

The same command continues a killed one, and adds tasks. With --samples each, samples (such as boolq_16_100)
take the place of tasks, and every task also has a row, that of its first sample.
"""

import json
import logging
from functools import lru_cache
from pathlib import Path

import numpy as np

from dataloader.atomic_files import folder_lock, write_text
from dataloader.errors import InputError, counted
from dataloader.executor import run_calls
from dataloader.jsonfile import load_json_object
from dataloader.progress import ProgressBar
from routing_moe.config.flags import differences, existing_paths
from routing_moe.config.plugins import load_plugin
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes, unwritable
from routing_moe.io.job_folder import JobFolder
from routing_moe.io.memory import naming_memory_flags
from routing_moe.io.run_folder import describe_run, foreign_problems
from routing_moe.model.task_vectors import META_FILE, NAMES_FILE, VECTORS_FILE, save_task_vectors

log = logging.getLogger("routing_moe")


def compute(settings, command: list[str]) -> int:
    """Computes the missing vectors of a `VectorSettings`; returns 1 if tasks failed, else 0.

    Raises InputError for flags, files and models that cannot be used, before anything is written.
    """
    folder, units, model_files = Path(settings.output_dir), settings.units(), settings.model_files()
    data = {name: [task, settings.checksum(task, samples)] for name, (task, samples) in units.items()}
    by_task = JobFolder(folder / "by_task", read_vector, "compute that vector again", ending=".npz")
    saved = earlier_run(settings, by_task, data, model_files)
    missing = {name: (settings, *unit) for name, unit in units.items() if name not in by_task.names()}
    if missing:
        method_of(settings)  # raises InputError for flags that do not fit the model
    workers = min(settings.num_workers, len(missing))
    if workers > 1:
        method_of.cache_clear()
    described = {"method": settings.method, "model_files": model_files}
    described |= {"data": saved.get("data", {}) | data, **describe_run(settings.to_dict(), command)}
    from routing_moe.io.logs import log_to_file, start_logging  # imports transformers

    start_logging()
    with folder_lock(folder), naming_memory_flags(settings):
        log_to_file(folder, "log.txt")
        write_text(folder / "run.json", json.dumps(described, indent=1))
        total, done, what = len(units), len(units) - len(missing), f"{settings.method} vectors"
        log.info("%s: %d tasks, %d already finished", what, total, done)
        bar = ProgressBar(total=total, initial=done, desc=what, unit="task", disable=settings.quiet)
        failed = by_task.collect(run_calls(vector_file, missing, workers), by_task.write, bar)
        method_of.cache_clear()
        if failed:
            failures = "%s failed, so that only by_task/ is written; the same command tries again:\n%s"
            log.error(failures, counted(len(failed), "task"), "\n".join(failed))
            return 1
        write_vectors(settings, by_task, described)
    return 0


@lru_cache(maxsize=1)
def method_of(settings):
    """Returns the object whose `vector_of(task, samples)` computes vectors (D,), with its model loaded."""
    load_plugin(getattr(settings, "plugin", None))  # in a process of its own
    from task.task_emb import gradients, methods  # import torch, which takes seconds

    classes = {
        "random": methods.RandomVectors,
        "descriptions": methods.Descriptions,
        "text": methods.Text,
        "finetuned_text": methods.FinetunedText,
        "fisher": gradients.Fisher,
        "gradient": gradients.Gradient,
    }
    return classes[settings.method](settings)


def vector_file(settings, task: str, samples: str) -> bytes:
    """Returns the content of a file of by_task/. Raises FloatingPointError if it would not be finite."""
    with naming_memory_flags(settings):
        vector_D = np.asarray(method_of(settings).vector_of(task, samples), dtype=np.float32)
    if not np.isfinite(vector_D).all():
        raise FloatingPointError("the vector has values that are not finite")
    return npz_bytes(vector_D=vector_D)


def read_vector(path: Path) -> np.ndarray:
    return load_arrays(path, ["vector_D"])["vector_D"]


def earlier_run(settings, by_task: JobFolder, data: dict, model_files: dict) -> dict:
    """Returns run.json of a folder with finished vectors, {} of one without. Raises InputError for others."""
    folder, path = Path(settings.output_dir), Path(settings.output_dir, "run.json")
    if reason := unwritable(folder):
        raise InputError(f"--output_dir {reason}")
    if not path.is_file():
        files = (NAMES_FILE, VECTORS_FILE, META_FILE, "config.json", "results.csv")
        if problems := foreign_problems(folder, files):
            raise InputError(problems)
        return {}
    saved = load_json_object(path, "the description of a folder of task vectors")
    if not all(isinstance(saved.get(name), dict) for name in ("settings", "model_files", "data")):
        begun = f"a run of another command, or vectors begun with the earlier commit {saved.get('git')}"
        raise InputError(f"--output_dir {folder} holds {begun}; name another folder")
    finished = by_task.names()
    if not finished:
        return {}
    where = f"the vectors in {folder}"
    problems = differences(settings, saved["settings"], where, ignored=existing_paths(settings))
    if saved.get("method") != settings.method:
        problems = [f"--output_dir {folder} holds vectors of the method {saved.get('method')!r}"]
    elif saved["model_files"] != model_files:
        problems.append(f"--output_dir {folder}: the files of its model differ from those of the given one")
    known = saved["data"] | data
    changed = [name for name in finished if saved["data"].get(name) != known.get(name, "unknown")]
    problems = problems or [f"{by_task.path(name)}: the data of {name} has changed since" for name in changed]
    if problems:
        raise InputError(f"{problem}; name another --output_dir" for problem in problems)
    return saved


def write_vectors(settings, by_task: JobFolder, described: dict) -> None:
    """Writes the files of all tasks from by_task/, meta.json last."""
    rows = {name: by_task.finished(name) for name in by_task.names()}
    tasks = {name: described["data"][name][0] for name in rows}
    sample_of = {name: task for name, task in tasks.items() if name != task}
    for sample in sorted(sample_of, key=lambda name: f"{name}_"):  # in the gym's order: by file names
        rows.setdefault(sample_of[sample], rows[sample])
    vectors_ND, folder = np.stack([rows[name] for name in sorted(rows)]), by_task.folder.parent
    meta = {
        "method": settings.method,
        "model": getattr(settings, "model", None),
        "dimension": vectors_ND.shape[1],
        "tasks": len(rows) - len(sample_of),
        "seen": settings.seen,
        "sample_of": sample_of,
    }
    save_task_vectors(folder, sorted(rows), vectors_ND)
    write_text(folder / META_FILE, json.dumps(meta | described, indent=1))
    what = "%d vectors of %d dimensions in %s; data of a task that its vector has seen: %s"
    log.info(what, len(tasks), meta["dimension"], folder, settings.seen)
