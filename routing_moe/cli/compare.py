"""Compare runs: a table of costs and mean scores, and one of scores by category.

    routing-moe compare models/moe models/multitask models/two_stage
    routing-moe compare models/compare_routings --baseline multitask --recovery skill
    routing-moe compare models/reproduce_paper/runs --columns cost test unseen \\
        --few_shot models/reproduce_paper/few_shot --output_dir tables
    routing-moe compare models/compare_routings --columns categories --part dev

Reads the scores of `--do_predict`. FOLDER is a run, or holds <run>/ or <variant>/<run>/. A run whose folder
is named seed<number> is one of the variant that the folder above is named after.

The columns cost, dev, test and unseen are those of overview.csv and .md, a row per variant, with --recovery
also recovery.csv. The column categories stands for tables and pictures of their own, comparison*: by
category, run, task and sample, costs, and scores along training.

Exits with 0; with 1 if a run is not finished (the tables are of the others); with 2 if there is no table.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, Problems
from dataloader.ontology import UNCATEGORISED, Ontology, ontology_path
from routing_moe.cli.console import run_command
from routing_moe.config.flags import flag_problems
from routing_moe.config.tables import CATEGORIES, CompareSettings
from routing_moe.io.files import distinct_tails, unwritable
from routing_moe.results.compared_costs import (
    RunCost,
    cost_markdown,
    cost_table,
    curves,
    find_costs,
)
from routing_moe.results.compared_runs import (
    Run,
    comparison_problems,
    comparison_warnings,
    find_runs,
    unknown_variants,
)
from routing_moe.results.compared_tables import compared, where_scored
from routing_moe.results.contrasts import parsed_contrast
from routing_moe.results.measures import TITLES
from routing_moe.results.overview import (
    COSTS,
    SCORED,
    explain_overview,
    few_shot_scores,
    overview,
    overview_markdown,
)
from routing_moe.results.run_folders import summary_path
from routing_moe.results.scores import ScoresFile


def main(argv: list[str] | None = None) -> int:
    return run_command(compare, CompareSettings, argv, __doc__)


def compare(settings: CompareSettings) -> int:
    """Writes and prints the tables. Returns 1 if a run is not finished, else 0."""
    check_flags(settings)
    unfinished = write_means(settings) if set(settings.columns) - {CATEGORIES} else []
    unfinished += write_categories(settings) if CATEGORIES in settings.columns else []
    return 1 if unfinished else 0


def check_flags(settings: CompareSettings) -> None:
    """Raises InputError for wrong flags."""
    problems = Problems(flag_problems(settings))
    if settings.output_dir and (reason := unwritable(settings.output_dir)):
        problems.append(f"--output_dir {reason}")
    if problems := problems + contrast_problems(settings):
        raise InputError(problems)


def contrast_problems(settings: CompareSettings) -> Problems:
    """Returns the problems of --primary, --contrasts and --design."""
    problems = Problems(
        f"--primary {name}: not one of --measures {' '.join(settings.measures)}"
        for name in settings.primary
        if name not in settings.measures
    )
    for text in settings.contrasts:
        problems.of(parsed_contrast, text)
    if settings.gym_per_seed and settings.design not in ("auto", "seeds"):
        problems.append(f"--design {settings.design}: with --gym_per_seed each seed has tasks of its own")
    return problems


def recovery_of(settings: CompareSettings, runs: Sequence[Run], checkpoint: str) -> pd.DataFrame | None:
    """Returns the agreement of the routes of each run's checkpoint with kinds of tasks.

    None without --recovery.
    """
    if not settings.recovery:
        return None
    from routing_moe.analysis.recovery import recovery_of_runs  # imports scipy, which takes a second

    return recovery_of_runs(runs, settings.recovery, checkpoint.removesuffix("-steps"))


def output_folder(settings: CompareSettings) -> Path:
    folders = settings.folders
    together = summary_path(distinct_tails([folder.absolute() for folder in folders]))
    folder = settings.output_dir or (together if len(folders) > 1 else folders[0])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# ---- the table of means


def write_means(settings: CompareSettings) -> list[str]:
    """Writes and prints the table of means. Returns a line per missing file of scores of train tasks."""
    runs, unfinished = runs_with_means(settings)
    costs = find_costs(runs["test"])
    recovery = recovery_of(settings, runs["test"], "best")
    few_shot = few_shot_scores(settings.few_shot, runs["test"]) if settings.few_shot else None
    shown = {name: scored for name, scored in runs.items() if name in settings.columns}
    table = overview(shown, costs, recovery, few_shot)
    if "cost" not in settings.columns:
        table = table.drop(columns=list(COSTS))
    markdown = f"{overview_markdown(table)}\n\n{explain_overview(table)}\n"
    folder = output_folder(settings)
    write_text(folder / "overview.csv", table.to_csv(index=False))
    write_text(folder / "overview.md", markdown)
    if recovery is not None:
        write_text(folder / "recovery.csv", recovery.to_csv(index=False))
    print(markdown)
    for line in unfinished:
        print(line, file=sys.stderr)
    return unfinished


def runs_with_means(settings: CompareSettings) -> tuple[dict[str, list[Run]], list[str]]:
    """Returns {column: finished runs, in order, with its scores}, and a line per missing file of train tasks.

    A run is finished if it has scores on test files of train tasks. Raises InputError if there is none, or if
    runs were scored on different gyms.
    """
    runs, problems, unfinished = {}, [], []
    for name, file in SCORED.items():
        if name != "test" and name not in settings.columns:
            continue
        runs[name] = find_runs(settings.folders, file, settings.order)
        problems += comparison_problems(runs[name], settings.gym_per_seed)
        if file.section == "train":
            unfinished += [
                f"not finished: {run} (no {file.path})" for run in runs[name] if run.scores is None
            ]
    finished = {str(run) for run in runs["test"] if run.scores is not None}
    if not finished:
        problems += ["no run has scores of train tasks; they are written with --do_predict"]
    if problems:
        raise InputError(dict.fromkeys(problems))
    return {name: [run for run in runs[name] if str(run) in finished] for name in runs}, unfinished


# ---- the tables by category


def write_categories(settings: CompareSettings) -> list[str]:
    """Writes and prints the tables by category. Returns a line per unfinished run."""
    scores_file = ScoresFile(settings.part, settings.predict_split, settings.checkpoint_name, settings.prefix)
    runs = find_runs(settings.folders, scores_file, settings.order)
    costs = find_costs(runs, settings.checkpoint_name)
    finished = [run for run in runs if run.scores is not None]
    unfinished = [f"not finished: {run} (no {scores_file.path})" for run in runs if run.scores is None]
    check_runs(settings, runs, finished, unfinished)
    warnings = comparison_warnings(finished, settings.gym_per_seed)
    notes = [*unfinished, *(f"warning: {line}" for line in warnings)]
    ontology = ontology_of(settings, finished, notes)
    recovery = recovery_of(settings, finished, settings.checkpoint_name)
    write_comparison(settings, costs, finished, ontology, notes, recovery)
    for note in notes:
        print(note, file=sys.stderr)
    return unfinished


def check_runs(
    settings: CompareSettings, runs: list[Run], finished: list[Run], unfinished: list[str]
) -> None:
    """Raises InputError with all reasons why no table can be made."""
    problems = comparison_problems(runs, settings.gym_per_seed, settings.measures)
    if not finished:
        hint = f"scores are written with --do_predict --predict_split {settings.predict_split}"
        problems += [*unfinished, f"no run is finished; {hint}"]
    else:
        named = {"--baseline": [settings.baseline] if settings.baseline else []}
        named["--contrasts"] = [name for text in settings.contrasts for name in parsed_contrast(text)]
        for flag, names in named.items():
            problems += unknown_variants(flag, names, finished)
    if problems:
        raise InputError(problems)


def ontology_of(settings: CompareSettings, runs: list[Run], notes: list[str]) -> Ontology:
    """Returns --task_ontology, else that of the first run; adds a note if no task has a category."""
    trained = runs[0].settings
    path = settings.task_ontology or ontology_path(trained["train_dir"], trained.get("task_ontology"))
    ontology = Ontology.load(path)
    if all(ontology.category(task) == UNCATEGORISED for task in runs[0].scores["task_prefix"]):
        where = path or f"{Path(trained['train_dir']) / 'ontology.json'} is not here"
        notes.append(f"warning: no task has a category ({where}); name a file with --task_ontology")
    return ontology


def write_comparison(
    settings: CompareSettings,
    costs: list[RunCost],
    runs: list[Run],
    ontology: Ontology,
    notes: list[str],
    recovery: pd.DataFrame | None,
) -> None:
    """Writes the files and prints the tables. The contents do not depend on time or machine."""
    # Matplotlib is imported here, after the checks: it takes half a second.
    from routing_moe.analysis.recovery import mean_recovery_markdown
    from routing_moe.pictures.dots import plot_comparison
    from routing_moe.pictures.lines import plot_curves
    from routing_moe.pictures.style import save

    found = compared(settings, runs, ontology)
    of_cost, dev_curves = cost_table(costs), curves(costs)
    draws = {run.variant: run.draws for run in runs if run.draws > 1}
    parts = [
        *found.markdown(settings, draws),
        cost_markdown(of_cost, costs),
        *([mean_recovery_markdown(recovery)] if recovery is not None else []),
    ]
    markdown = "\n\n".join(parts) + "\n"
    path = output_folder(settings) / "comparison"
    tables = found.csv_tables(settings) | {"_cost": of_cost, "_recovery": recovery, "_curves": dev_curves}
    tables = {end: rows for end, rows in tables.items() if rows is not None and len(rows)}
    for end, rows in tables.items():
        write_text(path.with_name(f"comparison{end}.csv"), rows.to_csv(index=False))
    write_text(path.with_suffix(".md"), "\n".join([markdown, *(f"- {note}\n" for note in notes)]))
    for measure in settings.measures:
        end = "" if measure == settings.measures[0] else f"_{measure}"
        title = f"{TITLES[measure]} {where_scored(settings)}"
        save(plot_comparison(*found.of(measure), title), path.with_name(f"comparison{end}"))
    if len(dev_curves):
        save(plot_curves(dev_curves), path.with_name("comparison_curves"))
    more = ", ".join(f"{end}.csv" for end in tables if end) + (", .png, .pdf" if len(dev_curves) else "")
    print(f"{markdown}\n{path}.md, .csv, .png, .pdf; {more}")


if __name__ == "__main__":
    sys.exit(main())
