"""Finds and reads the runs of a comparison, <folder>/<variant>/<run>/, and checks that they are comparable.

A run folder has run.json; the run is finished if its scores exist. The runs of a variant differ in seed.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from dataloader.errors import InputError, did_you_mean, in_short
from dataloader.jsonfile import load_json_object
from routing_moe.config.flags import flags_of
from routing_moe.config.train import TrainSettings
from routing_moe.io.files import folder_fault
from routing_moe.io.run_folder import load_run_settings
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
MOST_NAMES = 6  # tasks named in one message


@dataclass(frozen=True)
class Run:
    variant: str
    name: str
    settings: dict
    scores: pd.DataFrame | None  # None: not finished
    scored_with: dict  # the settings of the command that wrote the scores; {} if unknown

    def __str__(self) -> str:
        return f"{self.variant}/{self.name}"

    @property
    def seed(self):
        return self.settings.get("seed")

    @property
    def draws(self) -> int:
        """Number of draws of random routes that the scores are means of; 1 if routes are not random."""
        return int(self.scores["draws"].max()) if "draws" in self.scores else 1


def find_runs(folder: str | Path, scores_file: ScoresFile) -> list[Run]:
    """Returns all runs of the folder, finished or not, by variant and name.

    Raises InputError if there is no such folder, no run in it, a run without a seed, or a broken scores file.
    """
    folder = Path(folder)
    if fault := folder_fault(folder):
        raise InputError(fault)
    runs, faults = [], []
    for place in sorted(path.parent for path in folder.glob("*/*/run.json")):
        try:
            runs.append(_read_run(place, scores_file))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    if not runs:
        deeper = (folder / "run.json").is_file() or next(folder.glob("*/run.json"), None)
        hint = (
            "; it holds runs of one variant, or is a run; give the folder of the variants" if deeper else ""
        )
        raise InputError(f"{folder} holds no runs (expected <variant>/<run>/run.json){hint}")
    return runs


def _read_run(place: Path, scores_file: ScoresFile) -> Run:
    settings = load_run_settings(place)
    if settings.get("seed") is None:
        raise InputError(f"{place / 'run.json'} has no seed")
    path, settings_path = place / scores_file.path, place / scores_file.settings_path
    return Run(
        variant=place.parent.name,
        name=place.name,
        settings=settings,
        scores=read_scores(path) if path.is_file() else None,
        scored_with=(
            load_json_object(settings_path, "settings").get("settings", {}) if settings_path.is_file() else {}
        ),
    )


def in_order(runs: list[Run], order: list[str]) -> list[Run]:
    """Returns runs of the named variants first, then the others by name."""
    rank = {variant: number for number, variant in enumerate(order)}
    return sorted(runs, key=lambda run: (rank.get(run.variant, len(order)), run.variant, run.name))


def scores_per_task(runs: list[Run]) -> pd.DataFrame:
    """Returns a row per run and task (mean of samples): variant, run, seed, task, performance, constant."""
    tables = []
    for run in runs:
        tasks = run.scores.groupby("task_prefix")[["performance", "constant"]].mean()
        who = {"variant": run.variant, "run": run.name, "seed": run.seed}
        tables.append(tasks.rename_axis("task").reset_index().assign(**who))
    table = pd.concat(tables, ignore_index=True)
    return table[["variant", "run", "seed", "task", "performance", "constant"]]


# ---------------------------------------------------------------------------- checks of comparability


def comparison_faults(runs: list[Run], gym_per_seed: bool = False) -> list[str]:
    """Returns why the finished ones of these runs cannot be compared in one table; [] if they can.

    gym_per_seed: only runs with the same seed must have been scored on the same gym.
    """
    groups: dict[int | None, list[Run]] = {}
    for run in runs:
        if run.scores is not None:
            groups.setdefault(run.seed if gym_per_seed else None, []).append(run)
    return [*_seed_faults(runs), *(fault for group in groups.values() for fault in _task_faults(group))]


def unknown_variants(flag: str, names: list[str], runs: list[Run]) -> list[str]:
    """Returns one fault for each name, given with the flag, for which there is no run."""
    known = sorted({run.variant for run in runs})
    return [
        f"{flag} {name}: no such variant{did_you_mean(name, known)} (there are {', '.join(known)})"
        for name in names
        if name not in known
    ]


def _seed_faults(runs: list[Run]) -> list[str]:
    first, faults = {}, []
    for run in runs:
        same = first.setdefault((run.variant, run.seed), run)
        if same is not run:
            faults.append(
                f"{same} and {run} have the same seed, {run.seed}; the runs of a variant must differ in it"
            )
    return faults


def _task_faults(runs: list[Run]) -> list[str]:
    """Returns one fault for each run that was scored on different tasks or rows than most runs."""
    rows_of = {str(run): _rows_scored(run.scores) for run in runs}
    if not rows_of:
        return []
    usual = Counter(rows_of.values()).most_common(1)[0][0]
    example = next(name for name, rows in rows_of.items() if rows == usual)
    faults = []
    for name, rows in rows_of.items():
        tasks, usual_tasks = {row[0] for row in rows}, {row[0] for row in usual}
        if tasks != usual_tasks:
            words = [f"without {_names(usual_tasks - tasks)}"] if usual_tasks - tasks else []
            words += [f"with {_names(tasks - usual_tasks)}"] if tasks - usual_tasks else []
            faults.append(f"{name} has different tasks than {example}: {' and '.join(words)}")
        elif rows != usual:
            changed = _names({row[0] for row in set(rows) ^ set(usual)})
            what = "different samples, metrics, numbers of examples or constant scores"
            faults.append(f"{name} was scored on a different gym than {example}: {what} for {changed}")
    return faults


def _rows_scored(scores: pd.DataFrame) -> tuple:
    """Returns task, sample, metric, examples and constant score of each row, which identify a gym."""
    rounded = scores.assign(constant=scores["constant"].astype(float).round(6).fillna(-1.0))
    columns = ["task_prefix", "sample", "metric", "n", "constant"]
    return tuple(sorted(rounded[columns].itertuples(index=False, name=None)))


def _names(tasks: set[str]) -> str:
    return in_short(sorted(tasks), MOST_NAMES)


# ---------------------------------------------------------------------------- warnings


def comparison_warnings(runs: list[Run], gym_per_seed: bool = False) -> list[str]:
    """Returns one line for each difference that makes finished runs less comparable.

    gym_per_seed: gyms, and what is made for them, differ between seeds.
    """
    if gym_per_seed:
        kept = [{k: v for k, v in run.settings.items() if k not in OF_THE_GYM} for run in runs]
        runs = [replace(run, settings=settings) for run, settings in zip(runs, kept, strict=True)]
    by_variant: dict[str, list[Run]] = {}
    for run in runs:
        by_variant.setdefault(run.variant, []).append(run)
    warnings = []
    for variant, members in by_variant.items():
        trained = {str(run): _settings_without_seed(run) for run in members}
        warnings += [
            f"{variant}: settings other than the seed differ: {line}" for line in _differing(trained)
        ]
    scored = {str(run): {k: v for k, v in run.scored_with.items() if k in SCORING} for run in runs}
    warnings += [f"not all runs were scored in the same way: {line}" for line in _differing(scored)]
    budgets = {str(run): {k: v for k, v in run.settings.items() if k in BUDGET} for run in runs}
    for run in runs:
        if run.settings.get("num_experts") == 1:  # a plain BART is compared with mixtures
            del budgets[str(run)]["num_experts"]
        if not run.settings.get("initialize_from_vanilla", True):  # these come from the checkpoint
            budgets[str(run)].pop("model", None), budgets[str(run)].pop("num_experts", None)
    warnings += [f"not all runs were trained in the same way: {line}" for line in _differing(budgets)]
    gyms = {str(run): {k: _real(run.settings.get(k)) for k in ("train_dir", "predict_dir")} for run in runs}
    copies = "the scores have the same tasks and rows, so these are assumed to be copies of one gym"
    return warnings + [f"{line}; {copies}" for line in _differing(gyms)]


def _settings_without_seed(run: Run) -> dict:
    """Returns the settings that should be equal within a variant.

    A path that names another run of the same name (stage 1 with this seed) counts as equal in all runs.
    """
    own_name = re.compile(rf"(?<![^/]){re.escape(run.name)}(?![^/])")
    return {
        key: own_name.sub("*", value) if isinstance(value, str) else value
        for key, value in run.settings.items()
        if key not in FREE_IN_A_VARIANT
    }


def _differing(settings_of: dict[str, dict]) -> list[str]:
    """Returns a line for each setting that is not equal everywhere, with its values and their runs."""
    lines = []
    for key in dict.fromkeys(key for settings in settings_of.values() for key in settings):
        holders: dict[str, list[str]] = {}
        for name, settings in settings_of.items():
            if key in settings:  # otherwise written by a version without this setting
                holders.setdefault(str(settings[key]), []).append(name)
        if len(holders) > 1:
            lines.append(
                f"{key} is " + ", ".join(f"{value} ({_few(names)})" for value, names in holders.items())
            )
    return lines


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"


def _real(path: str | None) -> str | None:
    return path and str(Path(path).resolve())
