"""Print one table of compared runs: size, cost, scores of train tasks and unseen tasks, route recovery.

    python -m routing_moe.cli.overview models/quickstart --recovery skill
    python -m routing_moe.cli.overview models/compare_routings --order multitask two_stage --output_dir tables
    python -m routing_moe.cli.overview models/reproduce_paper/runs --few_shot models/reproduce_paper/few_shot

Reads the scores of `--do_predict`, checkpoint best, in FOLDER/<variant>/<run>/, with --few_shot also tables
of collect_results.py, and writes overview.csv and overview.md (a row per variant); with --recovery also
recovery.csv (a row per run and kind of features).
compare_runs has intervals, differences and scores by category.
Exits with 0; with 1 if scores of train tasks are missing; with 2 if there is no table.
"""

import sys

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_faults
from routing_moe.config.tables import OverviewSettings
from routing_moe.io.files import folder_fault, unwritable
from routing_moe.results import compared_runs
from routing_moe.results.compared_costs import find_costs
from routing_moe.results.compared_runs import Run
from routing_moe.results.overview import (
    SCORED,
    explain_overview,
    few_shot_scores,
    overview,
    overview_markdown,
)


def main(argv: list[str] | None = None) -> int:
    return run_command(show, OverviewSettings, argv, __doc__)


def show(settings: OverviewSettings) -> int:
    """Returns 1 if scores of train tasks are missing, else 0."""
    check_flags(settings)
    runs, unfinished = find_runs(settings)
    costs = find_costs(settings.folder, runs["test"])
    recovery = None
    if settings.recovery:
        from routing_moe.analysis.run_recovery import recovery_of_runs  # imports scipy, which takes a second

        steps = {str(run): "best" for run in runs["test"]}
        recovery = recovery_of_runs(settings.folder, runs["test"], settings.recovery, steps)
    few_shot = few_shot_scores(settings.few_shot, runs["test"]) if settings.few_shot else None
    table = overview(runs, costs, recovery, few_shot)
    markdown = f"{overview_markdown(table)}\n\n{explain_overview(table)}\n"
    place = settings.output_dir or settings.folder
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "overview.csv", table.to_csv(index=False))
    write_text(place / "overview.md", markdown)
    if recovery is not None:
        write_text(place / "recovery.csv", recovery.to_csv(index=False))
    print(markdown)
    print("\n".join(unfinished), file=sys.stderr, end="\n" if unfinished else "")
    return 1 if unfinished else 0


def check_flags(settings: OverviewSettings) -> None:
    faults = flag_faults(settings)
    if settings.output_dir and (reason := unwritable(settings.output_dir)):
        faults.append(f"--output_dir {reason}")
    if settings.few_shot and (fault := folder_fault(settings.few_shot)):
        faults.append(f"--few_shot {fault}")
    if faults:
        raise InputError(faults)


def find_runs(settings: OverviewSettings) -> tuple[dict[str, list[Run]], list[str]]:
    """Returns {column: finished runs, in order, with its scores}, and a line per missing file of train tasks.

    A run is finished if it has scores on test files of train tasks. Raises InputError if there is none, or if
    runs were scored on different gyms.
    """
    found, faults, unfinished = {}, [], []
    for name, file in SCORED.items():
        runs = compared_runs.in_order(compared_runs.find_runs(settings.folder, file), settings.order)
        faults += compared_runs.comparison_faults(runs, settings.gym_per_seed)
        if file.section == "train":
            unfinished += [f"not finished: {run} (no {file.path})" for run in runs if run.scores is None]
        found[name] = runs
    faults += compared_runs.unknown_variants("--order", settings.order, found["test"])
    finished = {str(run) for run in found["test"] if run.scores is not None}
    if not finished:
        faults += [f"{settings.folder}: no run has scores of train tasks; they are written with --do_predict"]
    if faults:
        raise InputError(dict.fromkeys(faults))
    return {name: [run for run in runs if str(run) in finished] for name, runs in found.items()}, unfinished


if __name__ == "__main__":
    sys.exit(main())
