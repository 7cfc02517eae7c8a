"""The runs that a user names: found in folders, read with their scores, and checked for comparability.

A run folder has run.json; the run is finished if its scores exist. The runs of a variant differ in seed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import flags_of
from routing_moe.config.measures import BASELINES, MEASURES
from routing_moe.config.train import TrainSettings
from routing_moe.io.files import distinct_paths, distinct_tails, folder_problem
from routing_moe.results.scores import ScoresFile, read_scores

OF_A_SEED = re.compile(r"seed\d+")  # of the variant that the folder above is named after
STARTS = {"stage1", "dense", "deltas"}  # runs that the scripts write into the run that starts from them
FLAGS = flags_of(TrainSettings)
# Settings in which the runs of a variant may differ; that change the scores of a model; of budget and size;
# that name a gym or what is made for one.
FREE = {"seed"} | {name for name, flag in FLAGS.items() if flag.on_resume} - {"predict_temperature"}
SCORING = {name for name, flag in FLAGS.items() if flag.compared_as == "scoring"}
BUDGET = {name for name, flag in FLAGS.items() if flag.compared_as == "budget"}
OF_THE_GYM = {"train_dir", "predict_dir", "custom_tasks_splits", "model", "taskvecs", "task_routes"}
RUN = ["variant", "run", "seed"]  # columns that identify a run
MOST_NAMES = 6  # tasks named in one message


# ---- folders


@dataclass(frozen=True)
class RunFolder:
    """A run of a variant. name: of its folder; "" for the only run of a variant, which is named after it."""

    variant: str
    name: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.variant}/{self.name}" if self.name else self.variant


def find_run_folders(folders: Sequence[Path], file: str) -> list[RunFolder]:
    """Returns the runs, which have the file, that the folders are, or hold as <run>/ or <variant>/<run>/.

    In the order of the folders, then by name. Variants of equal names get more of their path.
    """
    distinct_paths(folders)
    variant_of = {}
    for folder in folders:
        if problem := folder_problem(folder):
            raise InputError(problem)
        runs = _runs_of_variants(folder, file)
        if not runs:
            raise InputError(f"{folder} holds no runs; expected {file} in it, <run>/ or <variant>/<run>/")
        variant_of |= runs
    variants = list(dict.fromkeys(variant_of.values()))
    names = dict(zip(variants, distinct_tails(variants), strict=True))
    return [
        RunFolder(names[variant], "" if variant == run.absolute() else run.name, run)
        for run, variant in variant_of.items()
    ]


def _runs_of_variants(folder: Path, file: str) -> dict[Path, Path]:
    """Returns {run: absolute folder of its variant}. A run in a run, such as its first stage, is none."""
    if (folder / file).is_file():
        place = folder.absolute()
        return {folder: place.parent if OF_A_SEED.fullmatch(place.name) else place}
    runs = {}
    for place in sorted(folder.iterdir()):
        if (place / file).is_file():
            runs |= _runs_of_variants(place, file)
        else:
            inner = sorted(path.parents[file.count("/")] for path in place.glob(f"*/{file}"))
            if not {run.name for run in inner} <= STARTS:  # else a run that is not finished, with its start
                runs |= dict.fromkeys(inner, place.absolute())
    return runs


def summary_path(names: Iterable[str]) -> Path:
    """Returns the path of a folder or of tables that compare these, without an extension."""
    return Path("results_summary", re.sub(r"[^\w.-]", "-", "_".join(["CMP", *names])))


# ---- runs with scores


@dataclass(frozen=True)
class Run(RunFolder):
    """scores: None if not finished. scored_with: settings of the command that wrote them; {} if unknown."""

    settings: dict
    scores: pd.DataFrame | None
    scored_with: dict

    @property
    def seed(self):
        return self.settings.get("seed")

    @property
    def draws(self) -> int:
        """Number of draws of random routes that the scores are means of; 1 if routes are not random."""
        return int(self.scores["draws"].max()) if "draws" in self.scores else 1


def find_runs(folders: list[Path], file: ScoresFile, order: Sequence = ()) -> tuple[list[Run], list[str]]:
    """Returns (runs, finished or not: variants in the given order, then the others; notes of others)."""
    read = {run.folder: _read_run(run, file) for run in find_run_folders(folders, "run.json")}
    others = [f"{folder} is not a run of `train`" for folder, run in read.items() if run is None]
    runs = [run for run in read.values() if run]
    if not runs:
        raise InputError(others)
    if not {run.variant for run in runs}.intersection(order):  # else those of some variants have not begun
        check_variants("--order", order, runs)
    variants = list(dict.fromkeys([*order, *(run.variant for run in runs)]))
    notes = [f"note: {other}; it is left out" for other in others]
    return sorted(runs, key=lambda run: variants.index(run.variant)), notes


def _read_run(run: RunFolder, file: ScoresFile) -> Run | None:
    """Returns a run of `train`; None for another run.json, such as that of vectors or of a grid."""
    settings = load_json_object(run.folder / "run.json", "the description of a run").get("settings")
    path, described = run.folder / file.path, run.folder / file.settings_path
    if not isinstance(settings, dict) or not settings.keys() >= {"seed", "predict_dir"}:
        return None
    scores = read_scores(path) if path.is_file() else None
    scored = load_json_object(described, "settings") if described.is_file() else {}
    return Run(**vars(run), settings=settings, scores=scores, scored_with=scored.get("settings", {}))


def check_variants(flag: str, names: Sequence[str], runs: Sequence[Run], scored: bool = False) -> None:
    """Raises InputError if there is no run, or with `scored` no finished one, of a variant that is named."""
    known = sorted({run.variant for run in runs})
    finished = {run.variant for run in runs if run.scores is not None}
    for name in names:
        if name not in known:
            hint = f"{did_you_mean(name, known)} (there are {', '.join(known)})"
            raise InputError(f"{flag} {name}: no such variant{hint}")
        if scored and name not in finished:
            raise InputError(f"{flag} {name}: no run of it is finished")


def scores_per_sample(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row per run, task and sample with all measures and baselines; NaN where a run lacks one."""
    tables = [run.scores.assign(variant=run.variant, run=run.name, seed=run.seed) for run in runs]
    table = pd.concat(tables, ignore_index=True).rename(columns={"task_prefix": "task"})
    scores = [name for name in (*MEASURES, *BASELINES) if name in table]
    return table[[*RUN, "task", "sample", "metric", "n", *scores]]


def scores_per_task(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row per run and task: variant, run, seed, task, means of the scores over the samples."""
    per_sample = [scores_per_sample([run]).drop(columns=["sample", "metric", "n"]) for run in runs]
    tables = [rows.groupby([*RUN, "task"]).mean().reset_index() for rows in per_sample]
    return pd.concat(tables, ignore_index=True)


# ---- comparability


def check_comparable(runs: Sequence[Run], gym_per_seed: bool = False, measures: Sequence[str] = ()) -> None:
    """Raises InputError if the finished ones of these runs cannot be compared in one table.

    measures: columns that their scores must have, for the same tasks.
    """
    first, gyms, problems = {}, defaultdict(dict), []
    for run in runs:
        same = first.setdefault((run.variant, run.seed), run)
        if same is not run:
            raise InputError(
                f"{same} and {run} have the same seed, {run.seed}; the runs of a variant must differ in it"
            )
        if run.scores is None:
            continue
        for name in measures:
            if name not in run.scores or run.scores[name].isna().all():
                hint = f"score it with --measures {name}"
                raise InputError(f"--measures {name}: {run} has no {name} in its scores; {hint}")
        gyms[run.seed if gym_per_seed else None][str(run)] = _rows_scored(run.scores, measures)
    for rows_of in gyms.values():
        usual = Counter(rows_of.values()).most_common(1)[0][0]
        example = next(name for name, rows in rows_of.items() if rows == usual)
        problems += [
            f"{name} was scored on different tasks, samples, metrics, numbers of examples or constant scores "
            f"than {example}: {in_short(sorted({row[0] for row in rows ^ usual}), MOST_NAMES)}"
            for name, rows in rows_of.items()
            if rows != usual
        ]
    if problems:
        raise InputError(problems)


def _rows_scored(scores: pd.DataFrame, measures: Sequence[str]) -> frozenset:
    """Returns task, sample, metric, examples and constant score, which identify a gym, and which measures."""
    rounded = scores.assign(constant=scores["constant"].astype(float).round(6).fillna(-1.0))
    rounded = rounded.assign(**{name: scores[name].notna() for name in measures})
    columns = ["task_prefix", "sample", "metric", "n", "constant", *measures]
    return frozenset(rounded[columns].itertuples(index=False, name=None))


def differing_settings(runs: Sequence[Run], gym_per_seed: bool = False) -> list[str]:
    """Returns the settings whose difference makes finished runs less comparable.

    Of a variant these are all but FREE; of all runs those of scoring, training budget and model size.
    """
    ignored, alike = OF_THE_GYM if gym_per_seed else set(), defaultdict(list)
    for run in runs:
        budget, settings = BUDGET - ignored, run.settings
        if settings.get("num_experts") == 1:  # a plain model is compared with mixtures
            budget = budget - {"num_experts"}
        if settings.get("equal_flops"):  # by which the steps of runs differ
            budget, settings = budget - {"total_steps"}, settings | {"total_steps": None}
        if not settings.get("initialize_from_vanilla", True):  # these come from the checkpoint
            budget = budget - {"model", "num_experts"}
        # A path that names another run of the same name counts as equal in all runs.
        name = re.compile(rf"(?<![^/]){re.escape(run.name)}(?![^/])")
        texts = {key: name.sub("*", value) for key, value in settings.items() if isinstance(value, str)}
        alike[run.variant].append({k: v for k, v in (settings | texts).items() if k not in FREE | ignored})
        alike[None, "scoring"].append({k: v for k, v in run.scored_with.items() if k in SCORING})
        alike[None, "budget"].append({k: v for k, v in settings.items() if k in budget})
    values = defaultdict(set)
    for kind, members in alike.items():
        for key, value in (pair for settings in members for pair in settings.items()):
            values[kind, key].add(str(value))
    return sorted({key for (_, key), different in values.items() if len(different) > 1})
