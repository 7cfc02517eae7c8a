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
from routing_moe.results.compared_costs import cost_markdown, cost_table, curves, find_costs
from routing_moe.results.comparison import Compared, compared, parsed_contrast
from routing_moe.results.overview import (
    COSTS,
    SCORED,
    explain_overview,
    few_shot_scores,
    overview,
    overview_markdown,
)
from routing_moe.results.runs import (
    Run,
    comparison_problems,
    comparison_warnings,
    find_runs,
    summary_path,
    unknown_variants,
)
from routing_moe.results.scores import TITLES, ScoresFile


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
    for name in set(settings.primary) - set(settings.measures):
        problems.append(f"--primary {name}: not one of --measures {' '.join(settings.measures)}")
    for text in settings.contrasts:
        problems.of(parsed_contrast, text)
    if settings.gym_per_seed and settings.design not in ("auto", "seeds"):
        problems.append(f"--design {settings.design}: with --gym_per_seed each seed has tasks of its own")
    if problems:
        raise InputError(problems)


def recovery_of(settings: CompareSettings, runs: Sequence[Run], checkpoint: str) -> pd.DataFrame | None:
    """Returns the agreement of the routes of each run's checkpoint with kinds of tasks, if asked for."""
    if not settings.recovery:
        return None
    from routing_moe.analysis.recovery import recovery_of_runs  # imports scipy, which takes a second

    return recovery_of_runs(runs, settings.recovery, checkpoint.removesuffix("-steps"))


def write(settings: CompareSettings, texts: dict[str, str]) -> Path:
    """Writes {name: text} into the output folder, and returns it."""
    folder = settings.output_dir or settings.folders[0]
    if settings.output_dir is None and len(settings.folders) > 1:
        folder = summary_path(distinct_tails([folder.absolute() for folder in settings.folders]))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder


# ---- the table of means


def write_means(settings: CompareSettings) -> list[str]:
    """Writes and prints the table of means. Returns a line per missing file of scores of train tasks."""
    runs, unfinished = runs_with_means(settings)
    recovery = recovery_of(settings, runs["test"], "best")
    few_shot = few_shot_scores(settings.few_shot, runs["test"]) if settings.few_shot else None
    shown = {name: scored for name, scored in runs.items() if name in settings.columns}
    table = overview(shown, find_costs(runs["test"]), recovery, few_shot)
    if "cost" not in settings.columns:
        table = table.drop(columns=list(COSTS))
    markdown = f"{overview_markdown(table)}\n\n{explain_overview(table)}\n"
    texts = {"overview.csv": table.to_csv(index=False), "overview.md": markdown}
    if recovery is not None:
        texts["recovery.csv"] = recovery.to_csv(index=False)
    write(settings, texts)
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
        missing = [run for run in runs[name] if run.scores is None and file.section == "train"]
        unfinished += [f"not finished: {run} (no {file.path})" for run in missing]
    finished = {str(run) for run in runs["test"] if run.scores is not None}
    if not finished:
        problems += ["no run has scores of train tasks; they are written with --do_predict"]
    if problems:
        raise InputError(dict.fromkeys(problems))
    return {name: [run for run in runs[name] if str(run) in finished] for name in runs}, unfinished


# ---- the tables by category


def write_categories(settings: CompareSettings) -> list[str]:
    """Writes and prints the tables by category. Returns a line per unfinished run.

    The contents of files do not depend on time or machine.
    """
    file = ScoresFile(settings.part, settings.predict_split, settings.checkpoint_name, settings.prefix)
    runs = find_runs(settings.folders, file, settings.order)
    costs = find_costs(runs, settings.checkpoint_name)
    finished = [run for run in runs if run.scores is not None]
    unfinished = [f"not finished: {run} (no {file.path})" for run in runs if run.scores is None]
    check_runs(settings, runs, finished, unfinished)
    warnings = comparison_warnings(finished, settings.gym_per_seed)
    notes = [*unfinished, *(f"warning: {line}" for line in warnings)]
    comparison = compared(settings, finished, ontology_of(settings, finished, notes))
    recovery = recovery_of(settings, finished, settings.checkpoint_name)
    tables = comparison.csv_tables(settings)
    tables |= {"_cost": cost_table(costs), "_recovery": recovery, "_curves": curves(costs)}
    tables = {end: rows for end, rows in tables.items() if rows is not None and len(rows)}
    draws = {run.variant: run.draws for run in finished if run.draws > 1}
    parts = [*comparison.markdown(settings, draws), cost_markdown(tables["_cost"], costs)]
    if recovery is not None:
        from routing_moe.analysis.recovery import mean_recovery_markdown

        parts.append(mean_recovery_markdown(recovery))
    markdown = "\n\n".join(parts) + "\n"
    texts = {f"comparison{end}.csv": rows.to_csv(index=False) for end, rows in tables.items()}
    texts["comparison.md"] = "\n".join([markdown, *(f"- {note}\n" for note in notes)])
    folder = write(settings, texts)
    draw(settings, comparison, tables.get("_curves"), folder)
    more = [*(f"{end}.csv" for end in tables if end), *([".png, .pdf"] if "_curves" in tables else [])]
    print(f"{markdown}\n{folder / 'comparison'}.md, .csv, .png, .pdf; {', '.join(more)}")
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
        problems += unknown_variants("--baseline", filter(None, [settings.baseline]), finished)
        names = [name for text in settings.contrasts for name in parsed_contrast(text)]
        problems += unknown_variants("--contrasts", names, finished)
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


def draw(settings: CompareSettings, comparison: Compared, dev_curves, folder: Path) -> None:
    """Draws the means of each measure, and the curves, if there are any."""
    # Matplotlib is imported here, after the checks: it takes half a second.
    from routing_moe.pictures.dots import plot_comparison
    from routing_moe.pictures.lines import plot_curves
    from routing_moe.pictures.style import save

    for measure in settings.measures:
        end = "" if measure == settings.measures[0] else f"_{measure}"
        title = f"{TITLES[measure]} {settings.where_scored}"
        save(plot_comparison(*comparison.means(measure), title), folder / f"comparison{end}")
    if dev_curves is not None:
        save(plot_curves(dev_curves), folder / "comparison_curves")


if __name__ == "__main__":
    sys.exit(main())
