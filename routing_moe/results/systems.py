"""Finds the summaries of systems whose gains are computed."""

from pathlib import Path

from dataloader.errors import InputError, Problems, did_you_mean
from routing_moe.config.tables import GainSettings
from routing_moe.results.gains import system_names
from routing_moe.results.run_folders import find_run_folders
from routing_moe.results.scores import ScoresFile

Systems = dict[str, dict[int | str, Path]]  # {system: {seed, 0 without seeds: summary}}, the baseline first


def systems_of(settings: GainSettings) -> Systems:
    """Returns the summaries of the systems. Raises InputError for flags that name none, or no baseline."""
    of_files = ("summary1", "summary2", "seeds", "names")
    given = [f"--{name}" for name in of_files if getattr(settings, name)]
    if settings.folders:
        if given:
            raise InputError(f"{' '.join(given)}: for summaries that are named, not for those of folders")
        return _of_runs(settings)
    if settings.baseline or not (settings.summary1 and settings.summary2):
        raise InputError("name folders with runs, or summaries by --summary1 and --summary2")
    paths = [settings.summary1, *settings.summary2]
    names = settings.names or system_names(paths)
    return dict(zip(names, (_by_seed(path, settings.seeds) for path in paths), strict=False))


def _by_seed(summary: Path, seeds: tuple[int, ...]) -> dict[int | str, Path]:
    """Returns {seed: file} of the seeds whose file exists."""
    if not seeds:
        return {0: summary}
    files = {seed: Path(str(summary).replace("{seed}", str(seed))) for seed in seeds}
    return {seed: path for seed, path in files.items() if path.exists()}


def _of_runs(settings: GainSettings) -> Systems:
    part = settings.metric.partition("_")[0]
    problems, systems = Problems(), {}
    for file in ("summary.csv", ScoresFile(part, "test").path, ScoresFile(part).path):
        runs = problems.of(find_run_folders, settings.folders, file)
        if runs:
            break
    else:
        raise InputError(dict.fromkeys(problems))
    for run in runs:
        systems.setdefault(run.variant, {})[run.name.removeprefix("seed")] = run.folder / file
    first = next(iter(systems)) if len(settings.folders) > 1 else None
    baseline = settings.baseline or first
    if baseline not in systems:
        wrong = f" {baseline}: no such system{did_you_mean(baseline, systems)}" if baseline else " is missing"
        raise InputError(f"--baseline{wrong} (there are {', '.join(systems)})")
    if len(systems) == 1:
        raise InputError(f"{baseline} is the only system with {file}; there is nothing to compare it with")
    if first and all(len(files) == 1 for files in systems.values()):  # also of different seeds
        systems = {name: dict.fromkeys([0], *files.values()) for name, files in systems.items()}
    return {baseline: systems[baseline]} | systems
