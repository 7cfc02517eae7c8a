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
category, run, task and sample, and scores along training.

Exits with 0; with 1 if a run is not finished (the tables are of the others); with 2 if there is no table.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dataloader.atomic_files import write_text
from dataloader.errors import InputError, Problems
from dataloader.ontology import UNCATEGORISED
from routing_moe.analysis.runs import ontology_of
from routing_moe.config.console import run_command
from routing_moe.config.measures import MEASURES
from routing_moe.config.tables import CATEGORIES, CompareSettings
from routing_moe.io.files import distinct_tails
from routing_moe.results import overview
from routing_moe.results.comparison import Compared, compared, parsed_contrast
from routing_moe.results.runs import (
    Run,
    check_comparable,
    check_variants,
    differing_settings,
    find_runs,
    summary_path,
)
from routing_moe.results.scores import ScoresFile

UNFINISHED = "not finished"
Part = tuple[list[str], Callable[[], None]]  # notes; what writes and prints tables


def main(argv: list[str] | None = None) -> int:
    return run_command(compare, CompareSettings, argv, __doc__)


def compare(settings: CompareSettings) -> int:
    """Writes and prints the tables. Returns 1 if a run is not finished, else 0."""
    problems, settings = Problems(), replace(settings, measures=tuple(dict.fromkeys(settings.measures)))
    for name in set(settings.primary) - set(settings.measures):
        problems.append(f"--primary {name}: not one of --measures {' '.join(settings.measures)}")
    for text in settings.contrasts:
        problems.of(parsed_contrast, text)
    if settings.gym_per_seed and settings.design not in ("auto", "seeds"):
        problems.append(f"--design {settings.design}: with --gym_per_seed each seed has tasks of its own")
    problems += ignored_flags(settings)
    if problems:
        raise InputError(problems)
    parts = [tables_of_means(settings)] if set(settings.columns) - {CATEGORIES} else []
    parts += [tables_by_category(settings)] if CATEGORIES in settings.columns else []
    for _, write_part in parts:  # nothing is written before all flags are checked
        write_part()
    notes = dict.fromkeys(note for notes, _ in parts for note in notes)  # both may lack the same scores
    for note in notes:
        print(note, file=sys.stderr)
    return 1 if any(note.startswith(UNFINISHED) for note in notes) else 0


def ignored_flags(settings: CompareSettings) -> list[str]:
    """Returns a line for each flag given for a table that --columns leaves out."""
    of_categories, chosen = ("baseline", "contrasts", "predict_split"), set(settings.columns)
    ignored = {name: CATEGORIES for name in of_categories if CATEGORIES not in chosen}
    ignored |= {} if chosen - {CATEGORIES} else dict.fromkeys(("few_shot", "recovery"), "test")
    given = [name for name in ignored if getattr(settings, name) != getattr(CompareSettings, name)]
    return [f"--{name}: --columns lacks its table; add {ignored[name]}, or leave it out" for name in given]


def unfinished(runs: Sequence[Run], file: ScoresFile) -> list[str]:
    """Returns a line for each run without scores."""
    return [f"{UNFINISHED}: {run} (no {file.path})" for run in runs if run.scores is None]


def write(settings: CompareSettings, texts: dict[str, str]) -> Path:
    """Writes {name: text} into the output folder, and returns it."""
    folder = settings.output_dir or settings.folders[0]
    if settings.output_dir is None and len(settings.folders) > 1:
        folder = summary_path(distinct_tails([folder.absolute() for folder in settings.folders]))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
    return folder


def tables_of_means(settings: CompareSettings) -> Part:
    """Returns a line per missing file of scores of train tasks, and what writes the table of means.

    It has the runs with scores on test files of train tasks.
    """
    runs, notes = {}, []
    for name, file in overview.SCORED.items():
        if name == "test" or name in settings.columns:
            runs[name], others = find_runs(settings.folders, file, settings.order)
            check_comparable(runs[name], settings.gym_per_seed)
            notes += others + (unfinished(runs[name], file) if file.section == "train" else [])
    names = {str(run) for run in runs["test"] if run.scores is not None}
    if not names:
        raise InputError("no run has scores of train tasks; they are written with --do_predict")
    runs = {column: [run for run in scored if str(run) in names] for column, scored in runs.items()}
    recovery = None
    if settings.recovery:
        from routing_moe.analysis.recovery import recovery_of_runs  # imports scipy, which takes a second

        recovery = recovery_of_runs(runs["test"], settings.recovery, settings.task_ontology)
    few_shot = overview.few_shot_scores(settings.few_shot, runs["test"]) if settings.few_shot else None
    costs = overview.costs_of_runs(runs["test"])
    shown = {name: scored for name, scored in runs.items() if name in settings.columns}
    table = overview.overview(shown, costs, recovery, few_shot)
    unknown = overview.unknown_costs(costs)
    if "cost" not in settings.columns:
        table, unknown = table.drop(columns=list(overview.COSTS)), ""
    markdown = f"{overview.overview_markdown(table)}\n\n{overview.explain_overview(table)}\n{unknown}"
    texts = {"overview.csv": table.to_csv(index=False), "overview.md": markdown}
    if recovery is not None:
        texts["recovery.csv"] = recovery.to_csv(index=False)
    return notes, partial(write_means, settings, texts)


def write_means(settings: CompareSettings, texts: dict[str, str]) -> None:
    write(settings, texts)
    print(texts["overview.md"])


def tables_by_category(settings: CompareSettings) -> Part:
    """Returns notes, among them a line per unfinished run, and what writes the tables by category.

    The contents of files do not depend on time or machine.
    """
    file = ScoresFile(settings.part, settings.predict_split, settings.checkpoint_name, settings.prefix)
    runs, notes = find_runs(settings.folders, file, settings.order)
    finished, notes = [run for run in runs if run.scores is not None], notes + unfinished(runs, file)
    if not finished:
        hint = f"scores are written with --do_predict --predict_split {settings.predict_split}"
        raise InputError([*notes, f"no run is finished; {hint}"])
    check_comparable(runs, settings.gym_per_seed, settings.measures)
    check_variants("--baseline", [settings.baseline] if settings.baseline else [], runs, scored=True)
    for text in settings.contrasts:
        check_variants("--contrasts", parsed_contrast(text), runs, scored=True)
    if different := differing_settings(finished, settings.gym_per_seed):
        notes.append(f"warning: runs differ in {', '.join(different)}")
    ontology = ontology_of(finished[0].folder, finished[0].settings, settings.task_ontology)
    if all(ontology.category(task) == UNCATEGORISED for task in finished[0].scores["task_prefix"]):
        notes.append("warning: no task has a category; name a file with --task_ontology")
    comparison = compared(settings, finished, ontology)
    tables = comparison.csv_tables(settings)
    tables["_curves"] = overview.curves(runs, overview.costs_of_runs(runs), settings.measures)
    draws = {run.variant: run.draws for run in finished if run.draws > 1}
    markdown = "\n\n".join(comparison.markdown(settings, draws)) + "\n"
    return notes, partial(write_categories, settings, comparison, tables, markdown, notes)


def write_categories(settings: CompareSettings, comparison: Compared, tables, markdown, notes) -> None:
    written = {end: rows for end, rows in tables.items() if rows is not None and len(rows)}
    texts = {f"comparison{end}.csv": rows.to_csv(index=False) for end, rows in written.items()}
    texts["comparison.md"] = "\n".join([markdown, *(f"- {note}\n" for note in notes)])
    folder = write(settings, texts)
    optional = {*tables} - {*written} | {f"_{name}" for name in {*MEASURES} - {*settings.measures[1:]}}
    for end in optional:  # of an earlier comparison
        for kind in ("csv", "png", "pdf"):
            (folder / f"comparison{end}.{kind}").unlink(missing_ok=True)
    draw(settings, comparison, written.get("_curves"), folder)
    more = ", ".join(f"{end}.csv" for end in written if end)
    print(f"{markdown}\n{folder / 'comparison'}.md, .csv, .png, .pdf; {more}")


def draw(settings: CompareSettings, comparison: Compared, dev_curves, folder: Path) -> None:
    """Draws the means of each measure, and the curves, if there are any."""
    # Matplotlib is imported here, after the checks: it takes half a second.
    from routing_moe.pictures.dots import plot_comparison
    from routing_moe.pictures.lines import plot_curves
    from routing_moe.pictures.style import save

    for measure in settings.measures:
        end = "" if measure == settings.measures[0] else f"_{measure}"
        title = f"{MEASURES[measure].heading} {settings.where_scored}"
        save(plot_comparison(*comparison.means(measure), title), folder / f"comparison{end}")
    if dev_curves is not None:
        save(plot_curves(dev_curves), folder / "comparison_curves")
