"""Task vectors of fewer dimensions: principal components, fitted on the train tasks only.

    routing-moe vectors reduce --taskvecs data/task_vectors/fisher --dim 64 --transform log \\
        --custom_tasks_splits split.json --output_dir data/task_vectors/fisher64
    routing-moe vectors reduce --taskvecs data/new_tasks/fisher --like data/task_vectors/fisher64 \\
        --output_dir data/new_tasks/fisher64

The second command applies the reduction of the first to vectors of other tasks, computed with the same method
and settings, for a router that was trained on vectors of the first.
"""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_bytes, write_text
from dataloader.errors import InputError, problem_context
from routing_moe.config.console import run_command
from routing_moe.config.flags import (
    AT_LEAST_1,
    REQUIRED,
    Command,
    changed,
    command_line,
    differences,
    flags_of,
    group,
)
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes
from routing_moe.io.run_folder import describe_run
from routing_moe.model import task_vectors as files
from task.task_emb.settings import SETTINGS, chosen_tasks, split_of

REDUCTION_FILE = "reduction.npz"
ARRAYS = ("transform", "added", "mean_D", "scale_D", "components_dD", "factor", "explained_d")
OF_ROWS = ("samples", "max_tokens_per_micro_batch")  # in which vectors that are reduced alike may differ
LOG_OFFSET = 1e-3  # relative to the median positive number: added before the log, so that it is finite
VECTORS, FITTING = group("vectors"), group("the reduction")

log = logging.getLogger("routing_moe")


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ReduceSettings(Command):
    """The flags of `routing-moe vectors reduce`."""

    program = "routing-moe vectors reduce"

    taskvecs: str = VECTORS(REQUIRED, "folder of the vectors")
    output_dir: str = VECTORS(REQUIRED, "folder to write")
    dim: int | None = FITTING(None, "number of components, less than the number of tasks to fit on", range=AT_LEAST_1)
    like: str | None = FITTING(None, "apply the reduction saved in this folder instead of fitting one", metavar="FOLDER")
    fit_on: list[str] | None = FITTING(None, "tasks or sections of the split to fit on; all: all tasks of the split, or of the folder (default: train)", metavar="TASK")
    custom_tasks_splits: str | None = FITTING(None, "JSON with task lists train, dev, test")
    transform: str | None = FITTING(None, "transform vectors first; unit: to length 1; log: log of each number, for Fisher information, which spans orders of magnitude (default: none)", choices=("none", "unit", "log"))
# fmt: on


def main(argv: list[str] | None = None) -> int:
    run_here = partial(run, command=command_line(ReduceSettings, argv))
    return run_command(run_here, ReduceSettings, argv, __doc__)


def checked(settings: ReduceSettings) -> dict | None:
    """Returns the settings of the reduction in the output folder, if there is one. Raises InputError."""
    problems, folder = [], Path(settings.output_dir)
    if (settings.dim is None) == (settings.like is None):
        problems.append("give the number of dimensions as --dim, or else an existing reduction as --like")
    fitting = [name for name in ("fit_on", "custom_tasks_splits", "transform") if getattr(settings, name)]
    if settings.like and fitting:
        problems.append(f"--{fitting[0]} is for fitting a reduction; that of --like is fitted already")
    saved = files.load_meta(folder).get("settings")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / REDUCTION_FILE).exists():
        problems.append(f"--output_dir {folder} is not empty and has no {REDUCTION_FILE}; name another one")
    elif folder.resolve() in [Path(each).resolve() for each in (settings.taskvecs, settings.like) if each]:
        problems.append(f"--output_dir {folder} is the folder of --taskvecs or --like; name another folder")
    elif different := differences(settings, saved or {}, str(folder), ["output_dir"]):
        problems.append(f"{different[0]}; name another --output_dir")
    if problems:
        raise InputError(problems)
    return saved


def run(settings: ReduceSettings, command: list[str]) -> None:
    saved, folder = checked(settings), Path(settings.output_dir)
    with problem_context("--taskvecs "):
        names, vectors_ND = files.load_task_vectors(settings.taskvecs)
        source = files.load_meta(settings.taskvecs)
    sample_of = source.get("sample_of") or {}  # their tasks have rows of their own
    with problem_context(f"--taskvecs {settings.taskvecs}: "):
        if settings.like:
            reduction, fit = load_reduction(settings.like, source)
        else:
            tasks = tasks_to_fit_on(settings, [name for name in names if name not in sample_of])
            rows_ND = vectors_ND[[names.index(task) for task in tasks]]
            reduction = fitted(rows_ND, settings.dim, settings.transform or "none")
            fit = {"fitted_on": tasks, "fitted_on_seen": files.seen_by(source)}
        reduced_Nd = reduced(vectors_ND, reduction)
    from routing_moe.io.logs import start_logging  # imports transformers

    start_logging()
    if saved:  # written by the same flags; another machine rounds otherwise, and runs began with these files
        kept, kept_Nd = files.load_task_vectors(folder)
        if kept == names and np.allclose(kept_Nd, reduced_Nd, atol=1e-4):
            return log.info("%s has these vectors already", folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / REDUCTION_FILE, npz_bytes(**reduction))
    files.save_task_vectors(folder, names, reduced_Nd)
    meta = {
        "method": f"{source.get('method', 'unknown')}, reduced",
        "model": source.get("model"),
        "dimension": reduced_Nd.shape[1],
        "tasks": len(set(names) - set(sample_of)),
        "seen": files.seen_by(source),
        "sample_of": sample_of,
        **fit,
        "explained_variance": reduction["explained_d"].tolist(),
        **describe_run(settings.to_dict(), command),
        "source": source,
    }
    write_text(folder / files.META_FILE, json.dumps(meta, indent=1))
    explained = 100 * reduction["explained_d"].sum()
    what = "%d vectors of %d dimensions in %s, which explain %.1f%% of the variance"
    log.info(what, *reduced_Nd.shape, folder, explained)


def tasks_to_fit_on(settings: ReduceSettings, tasks: list[str]) -> list[str]:
    """Returns the tasks of --fit_on, by default the train tasks of the split. Raises InputError."""
    if settings.custom_tasks_splits is None and settings.fit_on == ["all"]:
        return tasks
    if settings.custom_tasks_splits is None and settings.fit_on is None:
        raise InputError("give --custom_tasks_splits for the train tasks, or --fit_on all")
    return chosen_tasks(settings.fit_on or ["train"], split_of(settings.custom_tasks_splits), tasks)


# ---- the reduction: {name: array}, factor * components_dD @ ((transform(x) - mean_D) / scale_D)


def fitted(vectors_ND: np.ndarray, dim: int, transform: str) -> dict[str, np.ndarray]:
    """Returns a reduction fitted on all rows, by a full (deterministic) singular value decomposition.

    Each dimension is scaled to variance 1. The reduced vectors of the rows have mean square 1, over all
    components together. added: before the log; explained_d: explained variance ratio of each component.
    """
    from sklearn.decomposition import PCA  # these take a second
    from sklearn.preprocessing import StandardScaler

    positive, N = vectors_ND[vectors_ND > 0], len(vectors_ND)
    added = LOG_OFFSET * float(np.median(positive)) if transform == "log" and len(positive) else 0.0
    transformed_ND = transformed(vectors_ND, transform, added)
    scaler = StandardScaler().fit(transformed_ND)
    scaled_ND = scaler.transform(transformed_ND)
    if dim > (spanned := np.linalg.matrix_rank(scaled_ND, rtol=1e-6)):
        raise InputError(
            f"--dim is {dim}, but the vectors of {N} tasks span {spanned}; give less, or more tasks"
        )
    pca = PCA(dim, svd_solver="full").fit(scaled_ND)
    factor = 1 / np.sqrt((pca.explained_variance_ * (N - 1) / N).mean())
    components_dD = pca.components_.astype(np.float32)  # the precision of saved vectors
    values = (transform, added, scaler.mean_, scaler.scale_, components_dD, factor)
    return dict(zip(ARRAYS, map(np.asarray, (*values, pca.explained_variance_ratio_)), strict=True))


def reduced(vectors_ND: np.ndarray, reduction: dict[str, np.ndarray]) -> np.ndarray:
    """Returns reduced vectors (N, d). Raises InputError for vectors of another dimension."""
    if vectors_ND.shape[1] != (D := len(reduction["mean_D"])):
        raise InputError(f"the reduction needs vectors of {D} dimensions, these have {vectors_ND.shape[1]}")
    transformed_ND = transformed(vectors_ND, str(reduction["transform"]), float(reduction["added"]))
    centred_ND = (transformed_ND - reduction["mean_D"]) / reduction["scale_D"]
    return centred_ND @ reduction["components_dD"].T * reduction["factor"]


def transformed(vectors_ND: np.ndarray, transform: str, added: float) -> np.ndarray:
    """Returns the transformed vectors (N, D), float64. Raises InputError where it is not defined."""
    vectors_ND = vectors_ND.astype(np.float64)
    if transform == "log":
        if not (vectors_ND + added > 0).all():
            raise InputError("--transform is log, but not all numbers are positive; give unit or none")
        return np.log(vectors_ND + added)
    if transform == "unit":
        lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return vectors_ND / np.where(lengths_N1 == 0, 1, lengths_N1)
    return vectors_ND


def load_reduction(like: str, source: dict) -> tuple[dict[str, np.ndarray], dict]:
    """Returns the reduction in the folder --like, and what it was fitted on.

    source: the meta.json of the vectors that it is applied to. Raises InputError if they are of another kind.
    """
    path, meta = Path(like) / REDUCTION_FILE, files.load_meta(like)
    if not path.is_file():
        raise InputError(f"--like {path}: no such file; name a folder of `routing-moe vectors reduce`")
    reduction = load_arrays(path, ARRAYS)
    fitted_on, where = meta.get("source") or {}, f"the vectors that --like {like} was fitted on"
    for name in ("method", "model_files") if source and fitted_on else ():
        if source.get(name) != fitted_on.get(name):
            raise InputError(f"another {name} than that of {where}")
    flags = flags_of(SETTINGS.get(source.get("method"), Command))
    fixed = {name for name, flag in flags.items() if not (flag.on_resume or flag.is_path)}.difference(OF_ROWS)
    values = {name: value for name, value in (source.get("settings") or {}).items() if name in fixed}
    if different := changed(values, fitted_on.get("settings") or {}, where):
        raise InputError(different)
    return reduction, {name: meta.get(name) for name in ("fitted_on", "fitted_on_seen")}
