"""Task vectors of fewer dimensions: principal components, fitted on the train tasks only.

    routing-moe vectors reduce --taskvecs data/task_vectors/fisher --dim 64 \\
        --custom_tasks_splits split.json --output_dir data/task_vectors/fisher64
    routing-moe vectors reduce --taskvecs data/new_tasks/fisher --like data/task_vectors/fisher64 \\
        --output_dir data/new_tasks/fisher64

The first command fits a reduction on the train tasks of the split, and writes it and the reduced vectors of
all tasks. The second applies it to vectors of other tasks, computed with the same method and settings, for a
router that was trained on vectors of the first.
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dataloader.atomic_files import write_bytes, write_text
from dataloader.errors import InputError, Problems, problem_context
from dataloader.jsonfile import load_json_object
from routing_moe.cli.console import run_command
from routing_moe.config.flags import (
    AT_LEAST_1,
    REQUIRED,
    Command,
    changed,
    command_line,
    flag_problems,
    flags_of,
    group,
)
from routing_moe.io.arrays import load_arrays
from routing_moe.io.files import npz_bytes, unwritable
from routing_moe.io.run_folder import describe_run
from routing_moe.model.task_vectors import (
    META_FILE,
    UNKNOWN,
    load_meta,
    load_task_vectors,
    samples_in,
    save_task_vectors,
    seen_by,
)
from task.task_emb.descriptions import DescriptionSettings
from task.task_emb.settings import GymSettings
from task.task_emb.sources import chosen_tasks, split_of

# ---- scaling and principal components, fitted on some of the tasks

# A reduction that is fitted on train tasks holds no information about unseen tasks, and can be applied to new
# tasks. It is saved as plain arrays.

REDUCTION_FILE = "reduction.npz"
TRANSFORMS = ("none", "unit", "log")
LOG_OFFSET = 1e-3  # relative to the median positive number: added before the log, so that it is finite


@dataclass(frozen=True, eq=False)
class Reduction:
    """x -> factor_d * components_dD @ ((transform(x) - mean_D) / scale_D), from D to d dimensions.

    explained_d: explained variance ratio of each component. added: number that is added before the log.
    """

    transform: str
    added: float
    mean_D: np.ndarray
    scale_D: np.ndarray
    components_dD: np.ndarray
    factor_d: np.ndarray
    explained_d: np.ndarray

    @classmethod
    def fit(cls, vectors_ND: np.ndarray, dim: int, transform="none") -> "Reduction":
        """Fits a reduction on all rows, by a full (deterministic) singular value decomposition.

        transform: "unit" scales each vector to length 1, "log" takes the log of each number, "none".
        Each input dimension is scaled to variance 1. The reduced vectors of the rows have mean square 1, over
        all components together. Raises InputError if dim is larger than the number of dimensions that the
        rows span, or for the log of negative numbers.
        """
        from sklearn.decomposition import PCA  # these take a second
        from sklearn.preprocessing import StandardScaler

        N, D = vectors_ND.shape
        if dim > min(N - 1, D):
            raise InputError(
                f"--dim is {dim}, but {N} mean-centred vectors of {D} dimensions span at most "
                f"{min(N - 1, D)}; give less, or more tasks to fit on (--fit_on)"
            )
        added = LOG_OFFSET * median_above_zero(vectors_ND) if transform == "log" else 0.0
        transformed_ND = transformed(vectors_ND, transform, added)
        scaler = StandardScaler().fit(transformed_ND)
        with np.errstate(invalid="ignore"):  # if all vectors are equal, which is reported below
            pca = PCA(dim, svd_solver="full").fit(scaler.transform(transformed_ND))
        mean_square_d = pca.explained_variance_ * (N - 1) / N
        if not mean_square_d.min() > 1e-12 * mean_square_d.max():
            spanned = int((mean_square_d > 1e-12 * mean_square_d.max()).sum())
            raise InputError(f"the vectors of {N} tasks span {spanned} dimensions, but --dim is {dim}")
        return cls(
            transform,
            added,
            scaler.mean_,
            scaler.scale_,
            pca.components_.astype(np.float32),  # half the file size, and the precision of saved vectors
            np.full(dim, 1 / np.sqrt(mean_square_d.mean())),
            pca.explained_variance_ratio_,
        )

    def __call__(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Returns reduced vectors (N, d). Raises InputError if D does not match, and see `transformed`."""
        D = len(self.mean_D)
        if vectors_ND.shape[1] != D:
            raise InputError(
                f"the reduction needs vectors of {D} dimensions, these have {vectors_ND.shape[1]}"
            )
        centred_ND = (transformed(vectors_ND, self.transform, self.added) - self.mean_D) / self.scale_D
        return centred_ND @ self.components_dD.T * self.factor_d

    def save(self, folder: str | Path) -> None:
        write_bytes(Path(folder) / REDUCTION_FILE, npz_bytes(**vars(self)))

    @classmethod
    def load(cls, folder: str | Path) -> "Reduction":
        """Returns the reduction saved in a folder. Raises InputError if the file is missing or damaged."""
        path = Path(folder) / REDUCTION_FILE
        try:
            arrays = load_arrays(path, cls.__dataclass_fields__)
            d, D = arrays["components_dD"].shape
            if [arrays[name].shape for name in ("mean_D", "scale_D", "factor_d")] != [(D,), (D,), (d,)]:
                raise ValueError("shapes of arrays do not match")
            arrays |= {"transform": str(arrays["transform"]), "added": float(arrays["added"])}
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; name a folder of `routing-moe vectors reduce`") from None
        except (ValueError, TypeError):  # an InputError is a ValueError
            raise InputError(f"{path} is damaged; write it again with `routing-moe vectors reduce`") from None
        return cls(**arrays)


def transformed(vectors_ND: np.ndarray, transform: str, added: float) -> np.ndarray:
    """Returns the transformed vectors (N, D), float64.

    Raises InputError for "log" of negative numbers and for "unit" of a zero vector.
    """
    vectors_ND = vectors_ND.astype(np.float64)
    if transform == "log":
        if (vectors_ND < 0).any():
            raise InputError("--transform is log, but the vectors have negative numbers; give unit or none")
        return np.log(vectors_ND + added)
    if transform == "unit":
        lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        if not lengths_N1.all():
            raise InputError("--transform is unit, but a vector is all zeros; give none")
        return vectors_ND / lengths_N1
    return vectors_ND


def median_above_zero(vectors_ND: np.ndarray) -> float:
    """Returns the median of all positive numbers. Raises InputError if there are none."""
    positive = vectors_ND[vectors_ND > 0]
    if not len(positive):
        raise InputError("--transform is log, but the vectors have no positive numbers; give none")
    return float(np.median(positive))


# ---- the command

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
    """The flags of `routing-moe vectors reduce`."""

    program = "routing-moe vectors reduce"
    usage = "--taskvecs FOLDER --dim D --output_dir FOLDER [flags, see --help]"

    taskvecs: str = VECTORS(REQUIRED, "folder of the vectors")
    output_dir: str = VECTORS(REQUIRED, "folder to write")
    dim: int | None = FITTING(None, "number of components, less than the number of tasks to fit on", range=AT_LEAST_1)
    like: str | None = FITTING(None, "apply the reduction saved in this folder instead of fitting one", metavar="FOLDER")
    fit_on: list[str] | None = FITTING(None, "tasks or sections of the split to fit on; all: all tasks of the split, or of the folder (default: train)", metavar="TASK")
    custom_tasks_splits: str | None = FITTING(None, "JSON with task lists train, dev, test")
    transform: str | None = FITTING(None, "transform vectors first; unit: to length 1; log: log of each number, for Fisher information, which spans orders of magnitude (default: none)", choices=TRANSFORMS)
# fmt: on


def main(argv: list[str] | None = None) -> int:
    run_here = partial(run, command=command_line(ReduceSettings, argv))
    return run_command(run_here, ReduceSettings, argv, __doc__)


def run(settings: ReduceSettings, command: list[str]) -> None:
    names, vectors_ND = check(settings)
    from routing_moe.io.logs import start_logging  # imports transformers

    start_logging()
    if settings.like:
        with problem_context("--like "):
            reduction = Reduction.load(settings.like)
        fitted_on = tasks_fitted_on(settings)
    else:
        fitted_on = tasks_to_fit_on(settings, names)
        with problem_context(f"--taskvecs {settings.taskvecs}: "):
            rows_ND = vectors_ND[[names.index(task) for task in fitted_on]]
            reduction = Reduction.fit(rows_ND, settings.dim, settings.transform or "none")
    with problem_context(f"--taskvecs {settings.taskvecs}: "):
        reduced_Nd = reduction(vectors_ND)
    write(settings, names, reduced_Nd, reduction, fitted_on, command)


def check(settings: ReduceSettings) -> tuple[list[str], np.ndarray]:
    """Returns the names and vectors (N, D) of the folder. Raises one InputError with all errors."""
    problems, folder = Problems(flag_problems(settings)), Path(settings.output_dir)
    loaded = problems.of(load_task_vectors, settings.taskvecs, flag="taskvecs")
    if settings.dim is None and not settings.like:
        problems.append("give the number of dimensions as --dim, or an existing reduction as --like")
    if settings.dim is not None and settings.like:
        problems.append("--dim and --like both determine the reduction; give one of them")
    if reason := unwritable(folder):
        problems.append(f"--output_dir {reason}")
    elif same := [flag for flag in ("taskvecs", "like") if is_same(getattr(settings, flag), folder)]:
        problems.append(f"--output_dir {folder} is the folder of --{same[0]}; name another folder")
    elif folder.is_dir() and any(folder.iterdir()) and not (folder / REDUCTION_FILE).exists():
        problems.append(
            f"--output_dir {folder} is not empty and has no {REDUCTION_FILE}; name another folder"
        )
    if problems:
        raise InputError(dict.fromkeys(problems))
    return loaded


def is_same(path: str | None, folder: Path) -> bool:
    return path is not None and Path(path).resolve() == folder.resolve()


def tasks_fitted_on(settings: ReduceSettings) -> list[str]:
    """Returns the tasks that --like was fitted on.

    Raises InputError if it was fitted on vectors of another method, model or settings.
    """
    like = settings.like
    with problem_context("--like "):
        saved = load_json_object(Path(like) / META_FILE, "the description of a reduction")
    before, now = saved.get("source") or {}, load_meta(settings.taskvecs)
    if before and now:
        where = f"the vectors that {like} was fitted on"
        settings_now, settings_then = (meta.get("settings") or {} for meta in (now, before))
        fixed = {name: value for name, value in settings_now.items() if name not in FREE_TO_APPLY}
        problems = changed(fixed, settings_then, where)
        if before.get("method") != now.get("method"):
            problems = [f"the method is {now.get('method')}, but {before.get('method')} in {where}"]
        elif before.get("model_files") != now.get("model_files"):
            problems.append(f"the files of the model differ from those of {where}")
        if problems:
            raise InputError(f"--taskvecs {settings.taskvecs}: {problem}" for problem in problems)
    return saved.get("fitted_on", [])


def tasks_to_fit_on(settings: ReduceSettings, names: Sequence[str]) -> list[str]:
    """Returns the tasks of --fit_on, by default the train tasks of the split. Raises InputError."""
    samples = samples_in(load_meta(settings.taskvecs))  # their tasks have their own rows
    names = [name for name in names if name not in samples]
    if settings.custom_tasks_splits is None and settings.fit_on == ["all"]:
        return names
    if settings.custom_tasks_splits is None and settings.fit_on is None:
        raise InputError(
            "the train tasks are not known: give --custom_tasks_splits, or --fit_on all to fit on all tasks"
        )
    with problem_context("--custom_tasks_splits " if settings.custom_tasks_splits else ""):
        split = split_of(settings.custom_tasks_splits, None)
    return chosen_tasks(settings.fit_on or ["train"], split, names, f"--taskvecs {settings.taskvecs}")


def write(
    settings: ReduceSettings,
    names: list[str],
    reduced_Nd: np.ndarray,
    reduction: Reduction,
    fitted_on: list[str],
    command: list[str],
) -> None:
    """Writes the output folder, meta.json last, and logs the explained variance."""
    folder, source = Path(settings.output_dir), load_meta(settings.taskvecs)
    folder.mkdir(parents=True, exist_ok=True)
    fitted_on_seen = seen_by(source)
    if settings.like:
        fitted_on_seen = load_meta(settings.like).get("fitted_on_seen", UNKNOWN)
    sample_of = samples_in(source)
    meta = {
        "method": f"{source.get('method', 'unknown')}, reduced",
        "model": source.get("model"),
        "dimension": reduced_Nd.shape[1],
        "tasks": len(set(names) - set(sample_of)),
        "seen": seen_by(source),
        **({"sample_of": sample_of} if sample_of else {}),
        "data_hash": source.get("data_hash"),
        "fitted_on": fitted_on,
        "fitted_on_seen": fitted_on_seen,
        "explained_variance": reduction.explained_d.tolist(),
        **describe_run(settings.to_dict(), command),
        "source": source,
    }
    reduction.save(folder)
    save_task_vectors(folder, names, reduced_Nd)
    write_text(folder / META_FILE, json.dumps(meta, indent=1))
    log.info(explained(reduction, len(fitted_on)))
    log.info("%d vectors of %d dimensions in %s; data of a task that its vector has seen: %s", len(names),
             reduced_Nd.shape[1], folder, meta["seen"])  # fmt: skip


def explained(reduction: Reduction, n_fitted: int) -> str:
    """Returns a line with the cumulative explained variance of the first components, in percent."""
    sums, d = np.cumsum(reduction.explained_d) * 100, len(reduction.explained_d)
    counts = sorted({k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k < d} | {d})
    parts = ", ".join(f"{k}: {sums[k - 1]:.1f}%" for k in counts)
    return f"cumulative explained variance by number of components, fitted on {n_fitted} tasks: {parts}"


if __name__ == "__main__":
    sys.exit(main())
