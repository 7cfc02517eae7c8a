"""Reads the runs of a comparison and checks that they are comparable.

A run folder has run.json; the run is finished if its scores exist. The runs of a variant differ in seed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, Problems, did_you_mean, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import flags_of
from routing_moe.config.train import TrainSettings
from routing_moe.io.run_folder import load_run_settings
from routing_moe.results.measures import NAMES, UNITS
from routing_moe.results.run_folders import RunFolder, find_run_folders
from routing_moe.results.scores import ScoresFile, read_scores

FLAGS = flags_of(TrainSettings)
# Settings in which the runs of a variant may differ without a warning.
FREE_IN_A_VARIANT = {"seed"} | {name for name, flag in FLAGS.items() if flag.on_resume} - {
    "predict_temperature"
}
# Settings that change the scores of a given model; they should be equal in all runs.
SCORING = {name for name, flag in FLAGS.items() if flag.compared_as == "scoring"}
# Settings of training budget and model size; they should be equal for a fair comparison.
BUDGET = {name for name, flag in FLAGS.items() if flag.compared_as == "budget"}
# Settings that name a gym or what is made for one.
OF_THE_GYM = {"train_dir", "predict_dir", "custom_tasks_splits", "model", "taskvecs", "task_routes"}
RUN = ["variant", "run", "seed"]  # columns that identify a run
MOST_NAMES = 6  # tasks named in one message


@dataclass(frozen=True)
class Run(RunFolder):
    settings: dict
    scores: pd.DataFrame | None  # None: not finished
    scored_with: dict  # the settings of the command that wrote the scores; {} if unknown

    def __str__(self) -> str:
        return f"{self.variant}/{self.name}" if self.name else self.variant

    @property
    def seed(self):
        return self.settings.get("seed")

    @property
    def draws(self) -> int:
        """Number of draws of random routes that the scores are means of; 1 if routes are not random."""
        return int(self.scores["draws"].max()) if "draws" in self.scores else 1


def find_runs(folders: Sequence[Path], file: ScoresFile, order: Sequence[str] = ()) -> list[Run]:
    """Returns the runs of the folders, finished or not: variants in the given order, then the others.

    Raises InputError as `find_run_folders` does, or for a run without a seed, a broken scores file, or no run
    of any named variant.
    """
    problems = Problems()
    runs = [problems.of(_read_run, run, file) for run in find_run_folders(folders, "run.json")]
    unknown = [] if problems else unknown_variants("--order", order, runs)
    if len(unknown) == len(order):  # else those of some variants have not begun
        problems += unknown
    if problems:
        raise InputError(problems)
    variants = list(dict.fromkeys([*order, *(run.variant for run in runs)]))
    return sorted(runs, key=lambda run: variants.index(run.variant))


def _read_run(run: RunFolder, scores_file: ScoresFile) -> Run:
    folder = run.folder
    settings = load_run_settings(folder)
    if settings.get("seed") is None:
        raise InputError(f"{folder / 'run.json'} has no seed")
    path, scored = folder / scores_file.path, folder / scores_file.settings_path
    return Run(
        **vars(run),
        settings=settings,
        scores=read_scores(path) if path.is_file() else None,
        scored_with=load_json_object(scored, "settings").get("settings", {}) if scored.is_file() else {},
    )


def unknown_variants(flag: str, names: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Returns one problem for each name, given with the flag, for which there is no run."""
    known = sorted({run.variant for run in runs})
    return [
        f"{flag} {name}: no such variant{did_you_mean(name, known)} (there are {', '.join(known)})"
        for name in names
        if name not in known
    ]


def scores_per_sample(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row per run, task and sample: variant, run, seed, task, sample, metric, n, scores.

    The scores are all measures and baselines that a run has; NaN where it lacks one.
    """
    tables = []
    for run in runs:
        rows = run.scores.rename(columns={"task_prefix": "task"})
        names = {"variant": run.variant, "run": run.name, "seed": run.seed}
        tables.append(rows.assign(**names))
    table = pd.concat(tables, ignore_index=True)
    known = [name for name in (*UNITS, *NAMES) if name in table]
    return table[[*RUN, "task", "sample", "metric", "n", *known]]


def scores_per_task(runs: Sequence[Run]) -> pd.DataFrame:
    """Returns a row per run and task: variant, run, seed, task, means of the scores over the samples."""
    per_sample = [scores_per_sample([run]).drop(columns=["sample", "metric", "n"]) for run in runs]
    tables = [rows.groupby([*RUN, "task"]).mean().reset_index() for rows in per_sample]
    return pd.concat(tables, ignore_index=True)


# ---------------------------------------------------------------------------- checks of comparability


def comparison_problems(
    runs: Sequence[Run], gym_per_seed: bool = False, measures: Sequence[str] = ()
) -> list[str]:
    """Returns why the finished ones of these runs cannot be compared in one table; [] if they can.

    gym_per_seed: only runs with the same seed must have been scored on the same gym. measures: columns that
    their scores must have, for the same tasks.
    """
    lacking = [
        f"--measures {name}: {run} has no {name} in its scores; score it with --measures {name}"
        for name in measures
        for run in runs
        if run.scores is not None and (name not in run.scores or run.scores[name].isna().all())
    ]
    if lacking:
        return lacking
    first, problems, groups = {}, [], defaultdict(list)
    for run in runs:
        same = first.setdefault((run.variant, run.seed), run)
        if same is not run:
            problems.append(
                f"{same} and {run} have the same seed, {run.seed}; the runs of a variant must differ in it"
            )
        if run.scores is not None:
            groups[run.seed if gym_per_seed else None].append(run)
    return problems + [problem for group in groups.values() for problem in _task_problems(group, measures)]


def _task_problems(runs: Sequence[Run], measures: Sequence[str]) -> list[str]:
    """Returns one problem for each run that was scored on different tasks or rows than most runs."""
    rows_of = {str(run): _rows_scored(run.scores, measures) for run in runs}
    usual = Counter(rows_of.values()).most_common(1)[0][0]
    example = next(name for name, rows in rows_of.items() if rows == usual)
    return [
        f"{name} was scored on different tasks, or on different samples, metrics, numbers of examples or "
        f"constant scores, than {example}: {in_short(sorted({row[0] for row in rows ^ usual}), MOST_NAMES)}"
        for name, rows in rows_of.items()
        if rows != usual
    ]


def _rows_scored(scores: pd.DataFrame, measures: Sequence[str]) -> frozenset:
    """Returns task, sample, metric, examples and constant score of each row, which identify a gym.

    Then whether it has each measure.
    """
    rounded = scores.assign(constant=scores["constant"].astype(float).round(6).fillna(-1.0))
    rounded = rounded.assign(**{name: scores[name].notna() for name in measures})
    columns = ["task_prefix", "sample", "metric", "n", "constant", *measures]
    return frozenset(rounded[columns].itertuples(index=False, name=None))


# ---------------------------------------------------------------------------- warnings


def comparison_warnings(runs: Sequence[Run], gym_per_seed: bool = False) -> list[str]:
    """Returns one line for each difference that makes finished runs less comparable.

    gym_per_seed: gyms, and what is made for them, differ between seeds.
    """
    ignored = OF_THE_GYM if gym_per_seed else ()
    settings_of = {str(run): {k: v for k, v in run.settings.items() if k not in ignored} for run in runs}
    warnings = []
    for variant in dict.fromkeys(run.variant for run in runs):
        members = [run for run in runs if run.variant == variant]
        trained = {str(run): _settings_without_seed(settings_of[str(run)], run.name) for run in members}
        warnings += _differing(f"{variant}: settings other than the seed differ: ", trained)
    scored = {str(run): {k: v for k, v in run.scored_with.items() if k in SCORING} for run in runs}
    warnings += _differing("not all runs were scored in the same way: ", scored)
    budgets = {str(run): _budget(settings_of[str(run)]) for run in runs}
    return warnings + _differing("not all runs were trained in the same way: ", budgets)


def _budget(settings: Mapping) -> dict:
    """Returns the settings of training budget and model size that should be equal in all runs."""
    budget = {name: value for name, value in settings.items() if name in BUDGET}
    if settings.get("num_experts") == 1:  # a plain BART is compared with mixtures
        del budget["num_experts"]
    if not settings.get("initialize_from_vanilla", True):  # these come from the checkpoint
        budget.pop("model", None), budget.pop("num_experts", None)
    return budget


def _settings_without_seed(settings: Mapping, run_name: str) -> dict:
    """Returns the settings that should be equal within a variant.

    A path that names another run of the same name (stage 1 with this seed) counts as equal in all runs.
    """
    same_name = re.compile(rf"(?<![^/]){re.escape(run_name)}(?![^/])")
    return {
        key: same_name.sub("*", value) if isinstance(value, str) else value
        for key, value in settings.items()
        if key not in FREE_IN_A_VARIANT
    }


def _differing(start: str, settings_of: Mapping[str, Mapping]) -> list[str]:
    """Returns a line for each setting with several values, with the runs of each value, after `start`."""
    runs_of: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run, settings in settings_of.items():
        for name, value in settings.items():
            runs_of[name][str(value)].append(run)
    return [
        f"{start}{name} is " + ", ".join(f"{value} ({_few(runs)})" for value, runs in values.items())
        for name, values in runs_of.items()
        if len(values) > 1
    ]


def _few(runs: list[str]) -> str:
    return in_short(runs, 2 if len(runs) == 2 else 1)
