"""Compare variants over runs of several seeds: mean and sample std per category, as tables and a picture.

    python -m routing_moe.cli.compare_runs models/compare_routings
    python -m routing_moe.cli.compare_runs models/compare_routings --order average random --baseline average
    python -m routing_moe.cli.compare_runs models/compare_routings --predict_split test --output_dir unseen
    python -m routing_moe.cli.compare_runs models/compare_routings --match flops --leave_out two_stage
    python -m routing_moe.cli.compare_runs models/compare_routings --recovery skill category

Reads the scores of `--do_predict` in FOLDER/<variant>/<run>/ and writes comparison.md (a row per variant),
comparison.csv (per variant and category), comparison_runs.csv (per run and category), comparison.png, .pdf;
comparison_cost.csv (parameters, steps, FLOPs); comparison_curves.csv, .png, .pdf (dev scores along training);
with --recovery comparison_recovery.csv (per run and kind: agreement of routes with the kinds of tasks).
With --match it compares the dev scores of the last evaluations within an equal training budget. File names
then begin with comparison_at_equal_steps or comparison_at_equal_flops.
Exits with 0; with 1 if a run is not finished (the tables are of the others); with 2 if there is no table.
"""

import sys
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError
from dataloader.ontology import UNCATEGORISED, Ontology, ontology_path
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_faults
from routing_moe.config.tables import CompareSettings
from routing_moe.results import compared_costs, compared_runs
from routing_moe.results import scores as results
from routing_moe.results.compared_costs import Compared
from routing_moe.results.compared_runs import Run
from routing_moe.results.scores import ScoresFile


def main(argv: list[str] | None = None) -> int:
    return run_command(compare, CompareSettings, argv, __doc__)


def compare(settings: CompareSettings) -> int:
    """Returns 1 if a run is not finished, else 0."""
    check_flags(settings)
    scores_file = ScoresFile(
        settings.scored_part, settings.predict_split, settings.checkpoint_name, settings.prefix
    )
    compared = find_compared(settings, scores_file)
    runs = [each.run for each in compared.costs]
    finished = [run for run in runs if run.scores is not None]
    lacking = "evaluation of its last step" if settings.match else scores_file.path
    unfinished = [f"not finished: {run} (no {lacking})" for run in runs if run.scores is None]
    check(settings, runs, finished, unfinished)
    warnings = compared_runs.comparison_warnings(finished, settings.gym_per_seed)
    notes = [*unfinished, *(f"warning: {line}" for line in warnings)]
    ontology = ontology_of(settings, finished, notes)
    recovery = recovery_of(settings, compared, finished) if settings.recovery else None
    write_comparison(settings, compared, finished, ontology, notes, recovery)
    for note in notes:
        print(note, file=sys.stderr)
    return 1 if unfinished else 0


def check_flags(settings: CompareSettings) -> None:
    """Raises InputError for wrong flags, or those that cannot be combined with --match."""
    faults = flag_faults(settings)
    if settings.match and settings.predict_split != "train":
        faults.append(f"--predict_split {settings.predict_split}: --match compares scores of the train tasks")
    if settings.match and settings.part == "test":
        faults.append(
            f"--part test: with --match {settings.match} only dev files have scores, those of the "
            "evaluations in training; for test scores train every variant to the budget (MATCH=flops of "
            "compare_routings.sh)"
        )
    if faults:
        raise InputError(faults)


def find_compared(settings: CompareSettings, scores_file: ScoresFile) -> Compared:
    """Returns the folder's runs in order, with their costs and the scores to compare."""
    runs = compared_runs.in_order(compared_runs.find_runs(settings.folder, scores_file), settings.order)
    if faults := compared_runs.unknown_variants("--leave_out", settings.leave_out, runs):
        raise InputError(faults)
    runs = [run for run in runs if run.variant not in settings.leave_out]
    costs = compared_costs.find_costs(settings.folder, runs, settings.checkpoint_name)
    return compared_costs.at_budget(costs, settings.match) if settings.match else Compared(costs)


def check(settings: CompareSettings, runs: list[Run], finished: list[Run], unfinished: list[str]) -> None:
    """Raises InputError with all reasons why no table can be made."""
    faults = compared_runs.comparison_faults(runs, settings.gym_per_seed)
    faults += compared_runs.unknown_variants("--order", settings.order, runs)
    if not finished:
        hint = f"scores are written with --do_predict --predict_split {settings.predict_split}"
        faults += [*unfinished, f"{settings.folder}: no run is finished; {hint}"]
    elif settings.baseline:
        faults += compared_runs.unknown_variants("--baseline", [settings.baseline], finished)
    if faults:
        raise InputError(faults)


def ontology_of(settings: CompareSettings, runs: list[Run], notes: list[str]) -> Ontology:
    """Returns --task_ontology, else that of the first run; adds a note if no task has a category."""
    trained = runs[0].settings
    path = settings.task_ontology or ontology_path(trained["train_dir"], trained.get("task_ontology"))
    ontology = Ontology.load(path)
    if all(ontology.category(task) == UNCATEGORISED for task in runs[0].scores["task_prefix"]):
        where = path or f"{Path(trained['train_dir']) / 'ontology.json'} is not here"
        notes.append(f"warning: no task has a category ({where}); name a file with --task_ontology")
    return ontology


def recovery_of(settings: CompareSettings, compared: Compared, runs: list[Run]) -> pd.DataFrame:
    """Returns the agreement of each run's routes with kinds of tasks, at the step of the compared scores."""
    from routing_moe.analysis.run_recovery import recovery_of_runs  # imports scipy, which takes a second

    scored_step = settings.checkpoint_name.removesuffix("-steps")
    steps = compared.steps or {str(run): scored_step for run in runs}
    return recovery_of_runs(settings.folder, runs, settings.recovery, steps)


def write_comparison(
    settings: CompareSettings, compared: Compared, runs: list[Run], ontology: Ontology, notes, recovery
) -> None:
    """Writes the files and prints the tables. The contents do not depend on time or machine.

    recovery: `recovery_of`, or None.
    """
    # Matplotlib is imported here, after the checks: it takes half a second.
    from routing_moe.analysis.run_recovery import mean_recovery, recovery_markdown
    from routing_moe.plots.variant_curves import plot_curves
    from routing_moe.plots.variants import plot_comparison

    scores = compared_runs.scores_per_task(runs)
    per_run = results.means_per_run(scores, ontology)
    table = results.comparison_table(scores, ontology, settings.baseline)
    if settings.gym_per_seed:  # a task of the same name has another category in each gym
        per_run, table = (rows[rows["category"] == results.ALL] for rows in (per_run, table))
    costs = compared_costs.cost_table(compared)
    what = f"mean score on the {settings.scored_part} files of the {settings.predict_split} tasks"
    draws = {run.variant: run.draws for run in runs if run.draws > 1}
    checkpoint = "of the last evaluation within the budget" if settings.match else settings.checkpoint_name
    parts = [
        *([compared_costs.explain_budget(compared)] if settings.match else []),
        results.explain_comparison(what, checkpoint, settings.baseline, draws),
        results.comparison_markdown(table, settings.baseline),
        compared_costs.cost_markdown(compared, costs),
        *([recovery_markdown(mean_recovery(recovery))] if recovery is not None else []),
    ]
    markdown = "\n\n".join(parts) + "\n"
    place = (settings.output_dir or settings.folder) / (
        f"comparison_at_equal_{settings.match}" if settings.match else "comparison"
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    curves = compared_costs.curves(compared.costs)
    tables = {"": table, "_runs": per_run, "_cost": costs, "_recovery": recovery, "_curves": curves}
    tables = {end: rows for end, rows in tables.items() if rows is not None and len(rows)}
    for end, rows in tables.items():
        write_text(beside(place, f"{end}.csv"), rows.to_csv(index=False))
    write_text(beside(place, ".md"), "\n".join([markdown, *(f"- {note}\n" for note in notes)]))
    for kind in (".png", ".pdf"):
        plot_comparison(per_run, table, beside(place, kind), what)
        if len(curves):
            plot_curves(curves, beside(place, f"_curves{kind}"))
    more = ", ".join(f"{end}.csv" for end in tables if end) + (", .png, .pdf" if len(curves) else "")
    print(f"{markdown}\n{place}.md, .csv, .png, .pdf; {more}")


def beside(place: Path, end: str) -> Path:
    return place.with_name(place.name + end)


if __name__ == "__main__":
    sys.exit(main())
