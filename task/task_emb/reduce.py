"""Task vectors of fewer dimensions: principal components, fitted on the train tasks only.

    python -m task.task_emb.reduce --taskvecs data/task_vectors/fisher --dim 64 \\
        --custom_tasks_splits split.json --output_dir data/task_vectors/fisher64
    python -m task.task_emb.reduce --taskvecs data/new_tasks/fisher --like data/task_vectors/fisher64 \\
        --output_dir data/new_tasks/fisher64

The first command fits a reduction on the train tasks of the split, and writes it and the reduced vectors of
all tasks. The second applies it to vectors of other tasks, computed with the same method and settings, for a
router that was trained on vectors of the first.
"""

import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_text
from dataloader.errors import Faults, InputError, fault_context
from dataloader.jsonfile import load_json_object
from dataloader.task_splits import load_split
from routing_moe.cli.console import reporting_errors
from routing_moe.config.flags import (
    AT_LEAST_1,
    REQUIRED,
    Command,
    changed,
    flag_faults,
    flags_of,
    group,
    parse,
)
from routing_moe.io.files import unwritable
from routing_moe.io.run_folder import describe_run
from routing_moe.model.task_vectors import (
    META_FILE,
    UNKNOWN,
    VECTORS_FILE,
    load_meta,
    load_task_vectors,
    samples_in,
    save_task_vectors,
    seen_by,
)
from task.task_emb.descriptions import DescriptionSettings
from task.task_emb.job import ADDED_LATER
from task.task_emb.reduction import REDUCTION_FILE, TRANSFORMS, Reduction
from task.task_emb.settings import GymSettings
from task.task_emb.sources import chosen_tasks

# Settings that may differ between the vectors a reduction is fitted on and those it is applied to.
FREE_TO_APPLY = {"samples", "max_examples"} | {
    name
    for method in (GymSettings, DescriptionSettings)
    for name, flag in flags_of(method).items()
    if flag.on_resume or flag.is_path
}
VECTORS = group("vectors")
FITTING = group("the reduction")

log = logging.getLogger("routing_moe")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ReduceSettings(Command):
    """The flags of `python -m task.task_emb.reduce`."""

    program = "python -m task.task_emb.reduce"
    usage = "--taskvecs FOLDER --dim D --output_dir FOLDER [flags, see --help]"

    taskvecs: str = VECTORS(REQUIRED, "folder of the vectors")
    output_dir: str = VECTORS(REQUIRED, "folder to write")
    dim: int | None = FITTING(None, "number of components, less than the number of tasks to fit on", range=AT_LEAST_1)
    like: str | None = FITTING(None, "apply the reduction saved in this folder instead of fitting one", metavar="FOLDER")
    fit_on: list[str] | None = FITTING(None, "tasks or sections of the split to fit on; all: all tasks of the split, or of the folder (default: train)", metavar="TASK")
    custom_tasks_splits: str | None = FITTING(None, "JSON with task lists train, dev, test")
    transform: str | None = FITTING(None, "transform vectors first; unit: to length 1; log: log of each number, for Fisher information, which spans orders of magnitude (default: none)", choices=TRANSFORMS)
    no_standardisation: bool = FITTING(False, "do not scale the input dimensions (default: scale each to variance 1)")
    whiten: bool = FITTING(False, "scale each component to mean square 1 (default: one factor for all, so that the mean over components is 1)")
# fmt: on


def main(argv: list[str] | None = None) -> int:
    settings = ReduceSettings(**parse(ReduceSettings, argv, __doc__))
    with reporting_errors(lambda: "the same command writes the vectors again") as result:
        names, vectors_ND = check(settings)
        from routing_moe.io.logs import start_logging  # imports transformers

        start_logging()
        reduction, fitted = make_reduction(settings, names, vectors_ND)
        with fault_context(f"--taskvecs {settings.taskvecs}: "):
            reduced_Nd = reduction(vectors_ND)
        command = None if argv is None else [*settings.program.split(), *argv]
        write(settings, names, reduced_Nd, reduction, fitted, command)
    return result.exit_code


# ---- check


def check(settings: ReduceSettings) -> tuple[list[str], np.ndarray]:
    """Returns the names and vectors (N, D) of the folder. Raises one InputError with all errors."""
    faults = Faults(flag_faults(settings))
    loaded = faults.of(load_task_vectors, settings.taskvecs, flag="taskvecs")
    if settings.custom_tasks_splits:
        faults.of(load_split, settings.custom_tasks_splits, flag="custom_tasks_splits")
    if settings.dim is None and not settings.like:
        faults.append("give the number of dimensions as --dim, or an existing reduction as --like")
    if settings.dim is not None and settings.like:
        faults.append("--dim and --like both determine the reduction; give one of them")
    folder = Path(settings.output_dir)
    if reason := unwritable(folder):
        faults.append(f"--output_dir {reason}")
    else:
        faults += folder_faults(settings, folder)
    if faults:
        raise InputError(dict.fromkeys(faults))
    return loaded


def folder_faults(settings: ReduceSettings, folder: Path) -> list[str]:
    """Returns an error unless the folder is new, or holds an earlier reduction that is not an input."""
    for flag in ("taskvecs", "like"):
        read = getattr(settings, flag)
        if read and Path(read).resolve() == folder.resolve():
            return [f"--output_dir {folder} is the folder of --{flag}; name another folder"]
    foreign = [name for name in ("run.json", "by_task", "config.json") if (folder / name).exists()]
    if (folder / VECTORS_FILE).exists() and not (folder / REDUCTION_FILE).exists():
        foreign.append(VECTORS_FILE)
    if foreign:
        return [
            f"--output_dir {folder} holds {foreign[0]}, which this command did not write; name another folder"
        ]
    return []


def make_reduction(settings: ReduceSettings, names: list[str], vectors_ND) -> tuple[Reduction, list[str]]:
    """Returns the reduction, fitted or loaded, and the tasks that it was fitted on. Raises InputError."""
    if settings.like:
        with fault_context("--like "):
            reduction = Reduction.load(settings.like)
        return reduction, tasks_fitted_on(settings)
    tasks = tasks_to_fit_on(settings, names)
    n, D, dim = len(tasks), vectors_ND.shape[1], settings.dim
    if n < 2:
        raise InputError(
            f"--fit_on: principal components need at least 2 tasks, only {tasks[0]} is given; name more tasks"
        )
    if dim > n - 1:
        raise InputError(
            f"--dim is {dim}, but {n} mean-centred vectors span at most {n - 1} dimensions; "
            f"give {n - 1} or less, or more tasks to fit on (--fit_on)"
        )
    if dim > D:
        raise InputError(f"--dim is {dim}, but the vectors of {settings.taskvecs} have {D} dimensions")
    rows = [names.index(task) for task in tasks]
    with fault_context(f"--taskvecs {settings.taskvecs}: "):
        reduction = Reduction.fit(
            vectors_ND[rows],
            dim,
            settings.transform or "none",
            not settings.no_standardisation,
            settings.whiten,
        )
    return reduction, tasks


def tasks_fitted_on(settings: ReduceSettings) -> list[str]:
    """Returns the tasks that --like was fitted on.

    Raises InputError if it was fitted on vectors of another method, model or settings.
    """
    like = settings.like
    with fault_context("--like "):
        saved = load_json_object(Path(like) / META_FILE, "the description of a reduction")
    before, now = saved.get("source") or {}, load_meta(settings.taskvecs)
    if before and now:
        where = f"the vectors that {like} was fitted on"
        settings_now, settings_then = (made.get("settings") or {} for made in (now, before))
        fixed = {name: value for name, value in settings_now.items() if name not in FREE_TO_APPLY}
        other = changed(fixed, ADDED_LATER | settings_then, where)
        if before.get("method") != now.get("method"):
            other = [f"the method is {now.get('method')}, but {before.get('method')} in {where}"]
        elif before.get("model_files") != now.get("model_files"):
            other.append(f"the files of the model differ from those of {where}")
        if other:
            raise InputError(f"--taskvecs {settings.taskvecs}: {fault}" for fault in other)
    return saved.get("fitted_on", [])


def tasks_to_fit_on(settings: ReduceSettings, names: list[str]) -> list[str]:
    """Returns the tasks of --fit_on, by default the train tasks of the split. Raises InputError."""
    samples = samples_in(load_meta(settings.taskvecs))  # their tasks have their own rows
    names = [name for name in names if name not in samples]
    if settings.custom_tasks_splits is None and settings.fit_on == ["all"]:
        return names
    if settings.custom_tasks_splits is None and settings.fit_on is None:
        raise InputError(
            "the train tasks are not known: give --custom_tasks_splits, or --fit_on all to fit on all tasks"
        )
    where = f"--taskvecs {settings.taskvecs}"
    return chosen_tasks(
        ["train"] if settings.fit_on is None else settings.fit_on, settings.custom_tasks_splits, names, where
    )


# ---- write


def write(settings, names, reduced_Nd, reduction: Reduction, fitted: list[str], command) -> None:
    """Writes the output folder, meta.json last, and logs the explained variance."""
    folder = Path(settings.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    of_source = load_meta(settings.taskvecs)
    samples = {"sample_of": of_samples} if (of_samples := samples_in(of_source)) else {}
    meta = {
        "method": f"{of_source.get('method', 'unknown')}, reduced",
        "model": of_source.get("model"),
        "dimension": reduced_Nd.shape[1],
        "tasks": len(set(names) - set(of_samples)),
        "seen": seen_by(of_source),
        **samples,
        "data_hash": of_source.get("data_hash"),
        "fitted_on": fitted,
        "fitted_on_seen": fitted_on_seen(settings, of_source),
        "explained_variance": reduction.explained_d.tolist(),
        **describe_run(asdict(settings), command),
        "source": of_source,
    }
    reduction.save(folder)
    save_task_vectors(folder, names, reduced_Nd)
    write_text(folder / META_FILE, json.dumps(meta, indent=1))
    log.info(explained(reduction, len(fitted)))
    log.info("%d vectors of %d dimensions in %s; data of a task that its vector has seen: %s", len(names),
             reduced_Nd.shape[1], folder, meta["seen"])  # fmt: skip


def fitted_on_seen(settings: ReduceSettings, of_source: dict) -> str:
    """Returns what the vectors that the reduction was fitted on have seen of their tasks."""
    if not settings.like:
        return seen_by(of_source)
    return load_meta(settings.like).get("fitted_on_seen", UNKNOWN)


def explained(reduction: Reduction, n_fitted: int) -> str:
    """Returns a line with the cumulative explained variance of the first components, in percent."""
    sums, d = np.cumsum(reduction.explained_d) * 100, len(reduction.explained_d)
    shown = sorted({k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k < d} | {d})
    parts = ", ".join(f"{k}: {sums[k - 1]:.1f}%" for k in shown)
    return f"cumulative explained variance by number of components, fitted on {n_fitted} tasks: {parts}"


if __name__ == "__main__":
    sys.exit(main())
